"""What methods that treat both views of an image alike have in common."""

from typing import Literal

import tensorflow as tf

from simclr_tf.methods.base import Sign
from simclr_tf.models.simclr import ForwardOutputs, SimCLRModel

_COLLAPSED_SPREAD = 0.02


def both_views(
    model: SimCLRModel, images: tf.Tensor, output: Literal["all", "unnormalised"]
) -> list[ForwardOutputs]:
    """The network's outputs for each of two views, each normalised by its own batch.

    Args:
        model: The network.
        images: Views [2, b, S, S, C].
        output: Whether the projection is normalised (`all`).
    """
    return [
        model.forward(view, training=True, stop_head_gradient=True, projection_layers=output)
        for view in (images[0], images[1])
    ]


def collapse_sign() -> Sign:
    """Projections that are the same for every image; see `losses.cosine.projection_spread`."""
    return Sign(
        "projection_spread",
        "below",
        _COLLAPSED_SPREAD,
        "different images have nearly the same projection: it collapses; lower the learning rate, "
        "or take a larger batch",
    )
