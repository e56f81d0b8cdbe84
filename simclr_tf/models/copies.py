"""Copies of networks."""

from simclr_tf.models.simclr import SimCLRModel


def float32_copy(model: SimCLRModel) -> SimCLRModel:
    """A copy of a network, outside any strategy, that computes in float32 and trains as a whole."""
    config = {"dtype": "float32", "trainable": True, "trainability": {}}
    copy = SimCLRModel.from_config({**model.get_config(), **config})
    copy.build((None, None, None, model.image_channels))
    for target, source in zip(copy.variables, model.variables, strict=True):
        target.assign(source.value.numpy())
    return copy
