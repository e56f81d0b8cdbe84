"""Vision transformers as backbones: patches alone, or after convolutions."""

import math
from typing import Any

import keras
import tensorflow as tf

from simclr_tf.models.architecture import ResNetArchitecture
from simclr_tf.models.architectures import HybridArchitecture, ViTArchitecture
from simclr_tf.models.backbone import DescribedBackbone
from simclr_tf.models.blocks import Shape
from simclr_tf.models.resnet import BlockGroup, Stem
from simclr_tf.models.transformer import TransformerGroup, with_positions

_CONVOLUTIONS = 18  # depth of the ResNet whose stages the hybrid begins with


class PatchEmbedding(keras.layers.Layer):
    """Patches of an image as tokens: the linear projection of each.

    Images [B, H, W, C] in [0, 1], brought to [-1, 1] -> [B, ceil(H / p), ceil(W / p), width];
    where patches stick out, the image is padded with grey.

    Args:
        width: of the tokens.
        patch_size: side p of a patch.
        fixed: leave the projection as it is drawn (MoCo v3, section 4.2).
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, width: int, patch_size: int, fixed: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.patch_size, self.fixed = width, patch_size, fixed

    def build(self, input_shape: Shape) -> None:
        """Creates kernel [p, p, C, width] (Xavier's, as a dense layer's) and bias [width]."""
        side, channels = self.patch_size, input_shape[-1] or 0
        limit = math.sqrt(6 / (side * side * channels + self.width))
        # By the variables: whatever thaws the stem leaves a fixed projection alone.
        trains = not self.fixed
        self.kernel = self.add_weight(
            name="kernel",
            shape=(side, side, channels, self.width),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            trainable=trains,
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.width,), initializer="zeros", trainable=trains
        )
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The tokens, without their positions."""
        kernel = tf.convert_to_tensor(self.kernel)
        tokens = tf.nn.conv2d(2 * inputs - 1, kernel, self.patch_size, "SAME")
        return tokens + tf.convert_to_tensor(self.bias)


@keras.saving.register_keras_serializable(package="simclr_tf")
class ViT(DescribedBackbone):
    """A vision transformer, see `StagedBackbone` and `ViTArchitecture`.

    The stem is the projection of patches with fixed sine-cosine positions; each group has a quarter
    of the blocks. There is no class token: the representation is the average over the places, and
    there is no normalisation before it. MoCo v3 (Chen et al. 2021, section 6.2, "Class token")
    finds this as good as a class token, and normalising before pooling much worse.

    Args:
        architecture: its numbers.
        trainability: which layers train, see `trainability_of`; None = all of them.
        **kwargs: of `keras.Model`.
    """

    architecture: ViTArchitecture
    architecture_type = ViTArchitecture

    def __init__(
        self,
        architecture: ViTArchitecture,
        trainability: dict[str, bool] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainability, **kwargs)
        self.architecture = a = architecture
        dtype = self.dtype_policy
        self.stem = PatchEmbedding(a.width, a.patch_size, a.fixed_patches, name="stem", dtype=dtype)
        self.block_groups = [
            TransformerGroup(a.width, a.heads, a.blocks, name=f"block_group{i}", dtype=dtype)
            for i in range(1, a.groups + 1)
        ]

    def build_stages(self) -> None:
        """Creates the projection and all blocks."""
        self.stem.build((None, None, None, self.architecture.image_channels))
        for group in self.block_groups:
            group.build((None, None, None, self.architecture.width))

    def run_stem(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The patches' projections, without and with their positions."""
        tokens = self.stem(images)
        return tokens, with_positions(tokens)

    def check_image_size(self, side: int, flag: str = "image_size") -> None:
        """Refuses images smaller than a patch."""
        self.architecture.check_image_size(side, flag)


@keras.saving.register_keras_serializable(package="simclr_tf")
class Hybrid(DescribedBackbone):
    """Convolutions, then attention, see `StagedBackbone` and `HybridArchitecture`.

    Stem and groups 1 and 2 are those of ResNet-18; group 3 begins with a strided convolution, adds
    fixed sine-cosine positions and, like group 4, consists of transformer blocks. The
    representation is the average over the places.

    Args:
        architecture: its numbers.
        batch_norm_decay: weight of the old moving statistics.
        global_bn: normalise over the batch of all replicas.
        trainability: which layers train, see `trainability_of`; None = all of them.
        **kwargs: of `keras.Model`.
    """

    architecture: HybridArchitecture
    architecture_type = HybridArchitecture

    def __init__(
        self,
        architecture: HybridArchitecture,
        batch_norm_decay: float = 0.9,
        global_bn: bool = True,
        trainability: dict[str, bool] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainability, **kwargs)
        self.architecture = a = architecture
        self.batch_norm_decay, self.global_bn = batch_norm_decay, global_bn
        norm = {"momentum": batch_norm_decay, "sync": global_bn}
        below = self._convolutions = ResNetArchitecture(
            _CONVOLUTIONS,
            a.width_multiplier,
            cifar_stem=a.cifar_stem,
            image_channels=a.image_channels,
        )
        dtype = self.dtype_policy
        self.stem = Stem(below, norm, name="stem", dtype=dtype)
        self.block_groups = [
            BlockGroup(below, 1, norm, name="block_group1", dtype=dtype),
            BlockGroup(below, 2, norm, name="block_group2", dtype=dtype),
            TransformerGroup(
                a.width, a.heads, a.blocks, reduce=True, name="block_group3", dtype=dtype
            ),
            TransformerGroup(a.width, a.heads, a.blocks, name="block_group4", dtype=dtype),
        ]

    def build_stages(self) -> None:
        """Creates convolutions and transformer blocks."""
        below = self._convolutions
        widths = [
            below.image_channels,
            self.stem.channels,
            below.group_filters(1),
            below.group_filters(2),
            self.architecture.width,
        ]
        for stage, width in zip(self.stages.values(), widths, strict=True):
            stage.build((None, None, None, width))

    def run_stem(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The first convolution before normalisation, and the stem's output."""
        return self.stem(images, training=training)

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        return {
            **super().get_config(),
            "batch_norm_decay": self.batch_norm_decay,
            "global_bn": self.global_bn,
        }
