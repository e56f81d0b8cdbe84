"""The backbones beside SimCLRv2's ResNet, by their architecture."""

from collections.abc import Mapping
from typing import Any

from simclr_tf.architectures import (
    HybridArchitecture,
    ViTArchitecture,
    architecture_of,
)
from simclr_tf.models.keras_backbone import KerasBackbone
from simclr_tf.models.staged import StagedBackbone
from simclr_tf.models.vit import Hybrid, ViT


def build_backbone(
    options: Mapping[str, Any],
    image_channels: int,
    *,
    batch_norm_decay: float,
    global_bn: bool,
    **kwargs: Any,
) -> StagedBackbone:
    """A backbone with fresh weights.

    Args:
        options: its numbers, see `simclr_tf.architectures.architecture_of`.
        image_channels: channels of the images.
        batch_norm_decay: weight of the old moving statistics.
        global_bn: normalise over the batch of all replicas.
        **kwargs: of `keras.Model`.

    Raises:
        UserError: There is no such backbone.
    """
    architecture = architecture_of(options, image_channels)
    if isinstance(architecture, ViTArchitecture):
        return ViT(architecture, **kwargs)
    if isinstance(architecture, HybridArchitecture):
        return Hybrid(architecture, batch_norm_decay, global_bn, **kwargs)
    return KerasBackbone(architecture, batch_norm_decay, global_bn, **kwargs)
