"""The backbones beside SimCLRv2's ResNet, by their architecture."""

from collections.abc import Mapping
from typing import Any

from simclr_tf.models.architectures import (
    DescribedArchitecture,
    HybridArchitecture,
    KerasArchitecture,
    ViTArchitecture,
    architecture_of,
    register_architecture,
)
from simclr_tf.models.backbone import DescribedBackbone, StagedBackbone
from simclr_tf.models.keras_backbone import KerasBackbone
from simclr_tf.models.vit import Hybrid, ViT

_REGISTERED: dict[type[DescribedArchitecture], type[DescribedBackbone]] = {}


def register_backbone(
    name: str, architecture: type[DescribedArchitecture], network: type[DescribedBackbone]
) -> None:
    """Adds a backbone, which `--backbone=name` takes from then on: docs/extend.md.

    Args:
        name: Its name.
        architecture: Its numbers, a frozen dataclass. Fields with the name of a flag of the network
            (`width_multiplier`, `transformer_depth`, `patch_size`) take the flag's value.
        network: The network, made by `network(architecture, batch_norm_decay, global_bn, **kwargs)`
            with the keyword arguments of `keras.Model`.

    Raises:
        ValueError: There is such a backbone.
    """
    register_architecture(name, architecture)
    _REGISTERED[architecture] = network


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
        options: its numbers, see `simclr_tf.models.architectures.architecture_of`.
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
    if isinstance(architecture, KerasArchitecture):
        return KerasBackbone(architecture, batch_norm_decay, global_bn, **kwargs)
    network: Any = _REGISTERED[type(architecture)]
    built: StagedBackbone = network(architecture, batch_norm_decay, global_bn, **kwargs)
    return built
