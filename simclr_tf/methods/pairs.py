"""What methods that treat both views of an image alike have in common."""

from typing import Literal

from simclr_tf.methods.base import Sign
from simclr_tf.methods.pretraining import ByView, heads
from simclr_tf.models.simclr import ForwardOutputs, SimCLRModel

_COLLAPSED_SPREAD = 0.02
PREDICTOR_CURE = "raise --predictor_rate, lower the learning rate, or take a larger batch"


def both_views(
    model: SimCLRModel, features: ByView, output: Literal["all", "unnormalised"]
) -> list[ForwardOutputs]:
    """The outputs of the heads for each of two views, each normalised by its own batch.

    Args:
        model: The network.
        features: Representations [b, D] of views 0 and 1.
        output: Whether the projection is normalised (`all`).
    """
    return [heads(model, features[view], output) for view in range(2)]


def collapse_sign(cure: str = "lower the learning rate, or take a larger batch") -> Sign:
    """Projections that are the same for every image; see `losses.cosine.projection_spread`.

    Args:
        cure: What to do about it.
    """
    return Sign(
        "projection_spread",
        "below",
        _COLLAPSED_SPREAD,
        f"different images have nearly the same projection: it collapses; {cure}",
    )
