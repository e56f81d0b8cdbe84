"""Barlow Twins: the views' projections are to agree dimension by dimension, without redundancy.

Zbontar et al. 2021, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction".
"""

import tensorflow as tf

from simclr_tf.losses.barlow_twins import barlow_twins_loss
from simclr_tf.methods.base import (
    ByView,
    HealthCheck,
    Pretraining,
    StepOutputs,
    both_views,
    with_probe,
)
from simclr_tf.models.simclr import SimCLRModel

_UNCORRELATED = 0.9


class BarlowTwins(Pretraining):
    """Cross-correlation of both views over the batch of all replicas.

    Args:
        model: The network.
        off_diagonal_weight: The paper's lambda.
    """

    signs = (
        HealthCheck(
            "on_diagonal",
            "above",
            _UNCORRELATED,
            "what the two views have in common is not found (1 = nothing, 0 = all): nothing is "
            "learnt; check the learning rate and whether crops still show the object",
        ),
    )

    def __init__(self, model: SimCLRModel, off_diagonal_weight: float) -> None:
        super().__init__(model)
        self._weight = off_diagonal_weight

    def losses(self, features: ByView, targets: ByView, labels: tf.Tensor) -> StepOutputs:
        """Losses of both views; see `Pretraining`."""
        a, b = both_views(self._model, features, "unnormalised")
        loss, on, off = barlow_twins_loss(a.projection, b.projection, self._weight)
        dim = self._model.encoder.projection_dim
        metrics = {"pretrain_loss": loss, "on_diagonal": on / dim, "off_diagonal": off / dim}
        return with_probe(loss, metrics, [a.logits, b.logits], labels)
