"""VICReg: the two views' projections are to agree, and to vary in every dimension.

Bardes, Ponce, LeCun 2022, "VICReg: Variance-Invariance-Covariance Regularization".
"""

import tensorflow as tf

from simclr_tf.losses.cosine import projection_spread
from simclr_tf.losses.vicreg import vicreg_terms
from simclr_tf.methods.base import (
    ByView,
    HealthCheck,
    Pretraining,
    StepOutputs,
    both_views,
    collapse_sign,
    with_probe,
)
from simclr_tf.models.simclr import SimCLRModel

_NO_VARIANCE = 1.9  # of 2, which is none at all in both views


class VICReg(Pretraining):
    """Three terms over the batch of all replicas.

    Args:
        model: The network.
        invariance: Weight of the difference of the two views (lambda).
        variance: Weight of the missing variance (mu).
        covariance: Weight of the covariances (nu).
    """

    signs = (
        collapse_sign(),
        HealthCheck(
            "variance_term",
            "above",
            _NO_VARIANCE,
            "the projections hardly vary from image to image (2 = not at all): they collapse; "
            "raise the learning rate or --vicreg_variance",
        ),
    )

    def __init__(
        self, model: SimCLRModel, invariance: float, variance: float, covariance: float
    ) -> None:
        super().__init__(model)
        self._weights = (invariance, variance, covariance)

    def losses(self, features: ByView, targets: ByView, labels: tf.Tensor) -> StepOutputs:
        """Losses of both views; see `Pretraining`."""
        a, b = both_views(self._model, features, "unnormalised")
        terms = vicreg_terms(a.projection, b.projection)
        loss = tf.add_n([w * term for w, term in zip(self._weights, terms, strict=True)])
        metrics = {
            "pretrain_loss": loss,
            "invariance_term": terms.invariance,
            "variance_term": terms.variance,
            "covariance_term": terms.covariance,
            "projection_spread": projection_spread(a.projection),
        }
        return with_probe(loss, metrics, [a.logits, b.logits], labels)
