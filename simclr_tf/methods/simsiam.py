"""SimSiam: predict the other view's projection; neither negatives nor a momentum network.

Chen and He 2021, "Exploring Simple Siamese Representation Learning", algorithm 1.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from simclr_tf.losses.cosine import negative_cosine, projection_spread
from simclr_tf.methods.base import Extension, StepOutputs
from simclr_tf.methods.pairs import both_views, collapse_sign
from simclr_tf.methods.probe import with_probe
from simclr_tf.models.predictor import Predictor
from simclr_tf.models.simclr import SimCLRModel


class SimSiam(Extension):
    """Both views predict each other's projection, which gets no gradient.

    Args:
        model: The network.
        predictor: On the projection.
    """

    signs = (collapse_sign(),)

    def __init__(self, model: SimCLRModel, predictor: Predictor) -> None:
        self._model, self._predictor = model, predictor

    @property
    def layers(self) -> Sequence[keras.layers.Layer]:
        """The predictor."""
        return (self._predictor,)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> StepOutputs:
        """Losses of two views [2, b, S, S, C] and labels [b]; see `Method`."""
        a, b = both_views(self._model, images, "all")
        cosines = [
            negative_cosine(self._predictor(view.projection, training=True), other.projection)
            for view, other in ((a, b), (b, a))
        ]
        loss = tf.add_n(cosines) / 2
        metrics = {"pretrain_loss": loss, "projection_spread": projection_spread(a.projection)}
        return with_probe(loss, metrics, [a.logits, b.logits], labels)
