"""SimCLRv2 networks: backbone, heads, freezing, and the names checkpoints give to variables."""

from simclr_tf.models.architecture import ProjectionArchitecture, ResNetArchitecture
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
