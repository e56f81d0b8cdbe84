"""Networks: backbones, heads, freezing, and the names checkpoints give to variables.

Names are imported when they are first used: architectures are plain numbers, which the command
line reads without TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simclr_tf.models.architectures import ProjectionArchitecture, ResNetArchitecture
    from simclr_tf.models.batch_norm import BatchNorm
    from simclr_tf.models.heads import ProjectionHead, SupervisedHead
    from simclr_tf.models.resnet import ResNet
    from simclr_tf.models.simclr import ForwardOutputs, SimCLREncoder, SimCLRModel
    from simclr_tf.models.variable_names import (
        canonical_variables,
        tf2_checkpoint_keys,
        variable_shapes,
    )
    from simclr_tf.models.weights import freeze

__all__ = [
    "BatchNorm",
    "ForwardOutputs",
    "ProjectionArchitecture",
    "ProjectionHead",
    "ResNet",
    "ResNetArchitecture",
    "SimCLREncoder",
    "SimCLRModel",
    "SupervisedHead",
    "canonical_variables",
    "freeze",
    "tf2_checkpoint_keys",
    "variable_shapes",
]

_MODULES = {
    "architectures": ("ProjectionArchitecture", "ResNetArchitecture"),
    "batch_norm": ("BatchNorm",),
    "heads": ("ProjectionHead", "SupervisedHead"),
    "resnet": ("ResNet",),
    "simclr": ("ForwardOutputs", "SimCLREncoder", "SimCLRModel"),
    "variable_names": ("canonical_variables", "tf2_checkpoint_keys", "variable_shapes"),
    "weights": ("freeze",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
