"""SimSiam: predict the other view's projection; neither negatives nor a momentum network.

Chen and He 2021, "Exploring Simple Siamese Representation Learning", algorithm 1.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from simclr_tf.losses.cosine import negative_cosine, projection_spread
from simclr_tf.methods.base import (
    PREDICTOR_CURE,
    ByView,
    Pretraining,
    StepOutputs,
    both_views,
    collapse_sign,
    with_probe,
)
from simclr_tf.models.heads import Predictor
from simclr_tf.models.simclr import SimCLRModel


class SimSiam(Pretraining):
    """Both views predict each other's projection, which gets no gradient.

    Args:
        model: The network.
        predictor: On the projection.
        predictor_rate: Factor on its learning rate.
    """

    signs = (collapse_sign(PREDICTOR_CURE),)

    def __init__(
        self, model: SimCLRModel, predictor: Predictor, predictor_rate: float = 1.0
    ) -> None:
        super().__init__(model)
        self._predictor, self.rate_factor = predictor, predictor_rate

    @property
    def layers(self) -> Sequence[keras.layers.Layer]:
        """The predictor."""
        return (self._predictor,)

    def losses(self, features: ByView, targets: ByView, labels: tf.Tensor) -> StepOutputs:
        """Losses of both views; see `Pretraining`."""
        a, b = both_views(self._model, features, "all")
        cosines = [
            negative_cosine(self._predictor(view.projection, training=True), other.projection)
            for view, other in ((a, b), (b, a))
        ]
        loss = tf.add_n(cosines) / 2
        metrics = {"pretrain_loss": loss, "projection_spread": projection_spread(a.projection)}
        return with_probe(loss, metrics, [a.logits, b.logits], labels)
