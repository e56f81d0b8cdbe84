"""BYOL: predict what a momentum network makes of the other view; no negatives.

Grill et al. 2020, "Bootstrap Your Own Latent", section 3.1 and 3.2.
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
from simclr_tf.methods.momentum import MomentumNetwork
from simclr_tf.models.heads import Predictor
from simclr_tf.models.simclr import SimCLREncoder, SimCLRModel


class BYOL(Pretraining):
    """Both views predict each other's target.

    Args:
        model: The network.
        momentum: The network that makes the targets.
        predictor: On the projection.
        predictor_rate: Factor on its learning rate.
    """

    signs = (collapse_sign(PREDICTOR_CURE),)

    def __init__(
        self,
        model: SimCLRModel,
        momentum: MomentumNetwork,
        predictor: Predictor,
        predictor_rate: float = 1.0,
    ) -> None:
        super().__init__(model)
        self._momentum, self._predictor = momentum, predictor
        self.rate_factor = predictor_rate

    @property
    def layers(self) -> Sequence[keras.layers.Layer]:
        """The predictor."""
        return (self._predictor,)

    @property
    def state(self) -> dict[str, keras.Variable]:
        """The momentum network."""
        return self._momentum.state

    def begin(self) -> None:
        """Sets the momentum network to the network's starting weights."""
        self._momentum.copy()

    @property
    def encoders(self) -> list[SimCLREncoder]:
        """The network and the momentum network."""
        return [self._model.encoder, self._momentum.encoder]

    def targets(self, images: tf.Tensor) -> ByView:
        """Representations of both views by the momentum network."""
        return {view: self._momentum.features(images[view]) for view in range(2)}

    def losses(self, features: ByView, targets: ByView, labels: tf.Tensor) -> StepOutputs:
        """Losses of both views; see `Pretraining`."""
        a, b = both_views(self._model, features, "unnormalised")
        projected = [self._momentum.projection(targets[view]) for view in range(2)]
        cosines = [
            negative_cosine(self._predictor(view.projection, training=True), target)
            for view, target in ((a, projected[1]), (b, projected[0]))
        ]
        loss = tf.add_n([2 + 2 * cosine for cosine in cosines])
        metrics = {"pretrain_loss": loss, "projection_spread": projection_spread(a.projection)}
        return with_probe(loss, metrics, [a.logits, b.logits], labels)

    def after_update(self, carried: tuple[tf.Tensor, ...]) -> None:
        """Moves the momentum network."""
        self._momentum.follow()
