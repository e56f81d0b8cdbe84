"""The SimCLRv2 ResNet: images to a representation."""

from typing import Any

import keras
import tensorflow as tf

from simclr_tf.models.architectures import NUM_GROUPS, ResNetArchitecture
from simclr_tf.models.backbone import StagedBackbone
from simclr_tf.models.batch_norm import BatchNorm
from simclr_tf.models.blocks import Convolution, ResidualBlock, Shape, build_chain


class Stem(keras.layers.Layer):
    """Layers before the block groups.

    3x3 without pooling (`cifar_stem`), three 3x3 and pooling (ResNet-D, with selective kernels),
    or 7x7 and pooling. Returns (first convolution's output before normalisation, stem's output);
    of three convolutions the last counts as first.
    """

    def __init__(
        self, architecture: ResNetArchitecture, norm: dict[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        base = architecture.base_filters
        self.pooled = not architecture.cifar_stem
        if architecture.cifar_stem:
            sizes = [(base, 3, 1)]
        elif architecture.deep_stem:
            sizes = [(base // 2, 3, 2), (base // 2, 3, 1), (base, 3, 1)]
        else:
            sizes = [(base, 7, 2)]
        self.convs = [
            Convolution(*size, name=f"conv_{i}", dtype=self.dtype_policy)
            for i, size in enumerate(sizes)
        ]
        self.norms = [
            BatchNorm(**norm, name=f"norm_{i}", dtype=self.dtype_policy) for i in range(len(sizes))
        ]

    def creation_order(self) -> list[keras.layers.Layer]:
        """Convolutions and normalisations by their numbers in checkpoints."""
        return [x for pair in zip(self.convs, self.norms, strict=True) for x in pair]

    def build(self, input_shape: Shape) -> None:
        """Creates convolutions and normalisations."""
        build_chain(self.creation_order(), input_shape)
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """[B, H, W, C] -> (initial_conv, initial_max_pool)."""
        x = initial_conv = inputs
        for conv, norm in zip(self.convs, self.norms, strict=True):
            initial_conv = conv(x)
            x = tf.nn.relu(norm(initial_conv, training=training))
        if self.pooled:
            x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        return initial_conv, x

    @property
    def channels(self) -> int:
        """Output channels."""
        return self.convs[-1].filters


class BlockGroup(keras.layers.Layer):
    """Residual blocks of one resolution; all but group 1 halve it."""

    def __init__(
        self, architecture: ResNetArchitecture, group: int, norm: dict[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.blocks = [
            ResidualBlock(
                architecture,
                architecture.group_filters(group),
                strides=2 if group > 1 and first else 1,
                project=first,
                norm=norm,
                name=f"block_{i}",
                dtype=self.dtype_policy,
            )
            for i in range(architecture.blocks_per_group[group - 1])
            for first in [i == 0]
        ]

    def creation_order(self) -> list[keras.layers.Layer]:
        """Convolutions and normalisations by their numbers in checkpoints."""
        return [leaf for block in self.blocks for leaf in block.creation_order()]

    def build(self, input_shape: Shape) -> None:
        """Creates all blocks."""
        build_chain(self.blocks, input_shape)
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] -> [B, H', W', group filters * expansion]."""
        x = inputs
        for block in self.blocks:
            x = block(x, training=training)
        return x


@keras.saving.register_keras_serializable(package="simclr_tf")
class ResNet(StagedBackbone):
    """SimCLRv2 ResNet (Chen et al. 2020, "Big Self-Supervised Models"), see `StagedBackbone`.

    Call: images [B, H, W, image_channels] in [0, 1], of any size -> representation [B, D].

    Args:
        depth: see `ResNetArchitecture`, also for the next six.
        width_multiplier: factor on all widths.
        sk_ratio: selective kernels and ResNet-D.
        se_ratio: squeeze-and-excitation.
        cifar_stem: stem for small images.
        batch_norm_decay: weight of the old moving statistics.
        global_bn: normalise over the batch of all replicas.
        image_channels: channels of the images.
        sk_min_dim: smallest gating width of selective kernels.
        trainability: which layers train, see `trainability_of`; None = all of them.
        **kwargs: of `keras.Model` (`name`, `dtype`, `trainable`).

    Raises:
        UserError: if the network cannot be built from these numbers.
    """

    architecture: ResNetArchitecture

    def __init__(
        self,
        depth: int = 50,
        *,
        width_multiplier: float = 1.0,
        sk_ratio: float = 0.0,
        se_ratio: float = 0.0,
        cifar_stem: bool = False,
        image_channels: int = 3,
        batch_norm_decay: float = 0.9,
        global_bn: bool = True,
        sk_min_dim: int = 32,
        trainability: dict[str, bool] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainability, **kwargs)
        self.architecture = ResNetArchitecture(
            depth, width_multiplier, sk_ratio, se_ratio, cifar_stem, image_channels, sk_min_dim
        )
        self.batch_norm_decay = batch_norm_decay
        self.global_bn = global_bn
        norm = {"momentum": batch_norm_decay, "sync": global_bn}
        dtype = self.dtype_policy
        self.stem = Stem(self.architecture, norm, name="stem", dtype=dtype)
        self.block_groups = [
            BlockGroup(self.architecture, i, norm, name=f"block_group{i}", dtype=dtype)
            for i in range(1, NUM_GROUPS + 1)
        ]

    def creation_order(self) -> list[keras.layers.Layer]:
        """Convolutions and normalisations in the order by which checkpoints number them."""
        return [leaf for stage in self.stages.values() for leaf in stage.creation_order()]

    def build_stages(self) -> None:
        """Creates stem and groups."""
        self.stem.build((None, None, None, self.architecture.image_channels))
        channels = self.stem.channels
        for i, group in enumerate(self.block_groups, start=1):
            group.build((None, None, None, channels))
            channels = self.architecture.group_filters(i) * self.architecture.expansion

    def run_stem(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The last convolution of the stem before normalisation, and its output."""
        return self.stem(images, training=training)

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        arch = self.architecture
        return {
            **super().get_config(),
            "depth": arch.depth,
            "width_multiplier": arch.width_multiplier,
            "sk_ratio": arch.sk_ratio,
            "se_ratio": arch.se_ratio,
            "cifar_stem": arch.cifar_stem,
            "image_channels": arch.image_channels,
            "batch_norm_decay": self.batch_norm_decay,
            "global_bn": self.global_bn,
            "sk_min_dim": arch.sk_min_dim,
        }
