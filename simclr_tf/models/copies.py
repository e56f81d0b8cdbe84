"""Copies of networks."""

from typing import Any

from simclr_tf.models.simclr import SimCLRModel


def float32_copy(model: SimCLRModel) -> SimCLRModel:
    """A copy of a network, outside any strategy, that computes in float32 and trains as a whole."""
    return copy_in(model, "float32", trainable=True, trainability={})


def copy_in(model: SimCLRModel, dtype: str, **config: Any) -> SimCLRModel:
    """A copy of a network, outside any strategy.

    Args:
        model: The network.
        dtype: Policy that the copy computes in, such as `mixed_bfloat16`.
        **config: What else differs in its configuration.
    """
    copy = SimCLRModel.from_config({**model.get_config(), "dtype": dtype, **config})
    copy.build((None, None, None, model.image_channels))
    for target, source in zip(copy.variables, model.variables, strict=True):
        target.assign(source.value.numpy())
    return copy
