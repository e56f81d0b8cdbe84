"""The weights of a network of `keras.applications` that a run starts from."""

from typing import Any

import keras

from simclr_tf.checkpoints.adapt import StemAdapt, adapt_channels
from simclr_tf.config.run_config import RunConfig
from simclr_tf.models.architectures import KerasArchitecture
from simclr_tf.models.backbone import StagedBackbone
from simclr_tf.models.keras_applications import build_trunk
from simclr_tf.models.keras_backbone import KerasBackbone

_FLAG = "backbone_weights"


def weighted_backbone(config: RunConfig) -> KerasBackbone | None:
    """The network that `--backbone_weights` is of, for images of three channels.

    Returns:
        The backbone, in float32 and outside any strategy; None if the flag is not given.

    Raises:
        UserError: There is no such file, it is of another network, or cannot be downloaded.
    """
    weights = config.model.backbone_weights
    if not weights:
        return None
    architecture = KerasArchitecture(config.model.backbone)
    trunk = build_trunk(architecture.application, (None, None, 3), weights, _FLAG)
    return KerasBackbone(architecture, trunk=trunk, dtype="float32")


def take_weights(
    backbone: StagedBackbone, source: StagedBackbone, stem_adapt: StemAdapt = "sum"
) -> int:
    """Sets a backbone's weights to those of another of the same kind.

    Args:
        backbone: Changed in place.
        source: For images of the same or another number of channels.
        stem_adapt: How weights for other channels are made.

    Returns:
        How many weights (numbers) were taken.
    """
    mine, theirs = _variables(backbone), _variables(source)
    for variable, other in zip(mine, theirs, strict=True):
        value = keras.ops.convert_to_numpy(other)
        variable.assign(adapt_channels(value, tuple(variable.shape), stem_adapt))
    return sum(int(keras.ops.size(variable)) for variable in mine)


def _variables(backbone: StagedBackbone) -> list[Any]:
    return [v for leaf in backbone.creation_order() for v in leaf.variables]
