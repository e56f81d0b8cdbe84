"""Vision transformers as backbones, and their blocks: patches alone, or after convolutions.

Blocks normalise first (Dosovitskiy et al. 2021, equations 2 and 3); initial values are those of
MoCo v3 (Chen et al. 2021): Xavier's, with query, key and value each for itself, and no biases.
"""

import math
from typing import Any

import keras
import tensorflow as tf

from simclr_tf.models.architectures import HybridArchitecture, ResNetArchitecture, ViTArchitecture
from simclr_tf.models.backbone import DescribedBackbone
from simclr_tf.models.blocks import Convolution, Shape, build_chain
from simclr_tf.models.resnet import BlockGroup, Stem

MLP_RATIO = 4
_TEMPERATURE = 10000.0
_EPSILON = 1e-6


def position_embedding(height: tf.Tensor | int, width: tf.Tensor | int, dim: int) -> tf.Tensor:
    """Sines and cosines of the row and the column of every token (MoCo v3, section 5).

    It is fixed, so the network takes images of any size.

    Args:
        height: rows h of tokens.
        width: columns w.
        dim: length of a token, a multiple of 4.

    Returns:
        [h, w, dim] float32: sine and cosine of the column, then of the row, each at dim / 4
        frequencies from 1 down to almost 1 / 10000.
    """
    quarter = dim // 4
    exponents = tf.range(quarter, dtype=tf.float32) / quarter
    frequencies = _TEMPERATURE**-exponents
    rows = tf.range(height, dtype=tf.float32)[:, tf.newaxis, tf.newaxis] * frequencies
    columns = tf.range(width, dtype=tf.float32)[tf.newaxis, :, tf.newaxis] * frequencies
    parts = [tf.sin(columns), tf.cos(columns), tf.sin(rows), tf.cos(rows)]
    return tf.concat([tf.broadcast_to(p, [height, width, quarter]) for p in parts], -1)


def with_positions(maps: tf.Tensor) -> tf.Tensor:
    """Adds the position embedding to feature maps [B, h, w, d]."""
    embedding = position_embedding(*_sides(maps), maps.shape[-1])
    return maps + tf.cast(embedding, maps.dtype)


def _sides(maps: tf.Tensor) -> tuple[tf.Tensor | int, tf.Tensor | int]:
    """Height and width, as numbers where they are known."""
    dynamic = tf.shape(maps)
    height, width = (maps.shape[i] or dynamic[i] for i in (1, 2))
    return height, width


class Attention(keras.layers.Layer):
    """Self-attention of many heads (Vaswani et al. 2017, section 3.2): [B, N, d] -> [B, N, d].

    The softmax is never taken in half precision.

    Args:
        width: d.
        heads: into which it is split.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, width: int, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.heads = width, heads
        limit = math.sqrt(6 / (width + width))
        self.query_key_value = keras.layers.Dense(
            3 * width,
            kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
            name="query_key_value",
            dtype=self.dtype_policy,
        )
        self.output_layer = keras.layers.Dense(width, name="output", dtype=self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        """Creates both dense layers."""
        self.query_key_value.build(input_shape)
        self.output_layer.build(input_shape)
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Every token's mixture of all of them."""
        tokens = inputs.shape[1] or tf.shape(inputs)[1]
        each = self.width // self.heads
        split = tf.reshape(self.query_key_value(inputs), [-1, tokens, 3, self.heads, each])
        query, key, value = tf.unstack(tf.transpose(split, [2, 0, 3, 1, 4]))
        scores = tf.matmul(query * each**-0.5, key, transpose_b=True)
        weights = tf.nn.softmax(tf.cast(scores, self.variable_dtype))
        mixed = tf.matmul(tf.cast(weights, value.dtype), value)
        joined = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, tokens, self.width])
        return self.output_layer(joined)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape


class TransformerBlock(keras.layers.Layer):
    """Attention, then two dense layers, each on normalised tokens and added to what came in.

    [B, N, d] -> [B, N, d]; the hidden layer is four times as wide, with GELU.
    """

    def __init__(self, width: int, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        dtype = self.dtype_policy
        norm = keras.layers.LayerNormalization
        self.attention_norm = norm(epsilon=_EPSILON, name="attention_norm", dtype=dtype)
        self.attention = Attention(width, heads, name="attention", dtype=dtype)
        self.mlp_norm = norm(epsilon=_EPSILON, name="mlp_norm", dtype=dtype)
        self.hidden = keras.layers.Dense(MLP_RATIO * width, "gelu", name="hidden", dtype=dtype)
        self.output_layer = keras.layers.Dense(width, name="output", dtype=dtype)

    def build(self, input_shape: Shape) -> None:
        """Creates all weights."""
        for layer in (self.attention_norm, self.attention, self.mlp_norm):
            layer.build(input_shape)
        build_chain([self.hidden, self.output_layer], input_shape)
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The block's output."""
        x = inputs + self.attention(self.attention_norm(inputs))
        return x + self.output_layer(self.hidden(self.mlp_norm(x)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape


class TransformerGroup(keras.layers.Layer):
    """Some transformer blocks on feature maps.

    [B, h, w, c] -> [B, h, w, width], or half the sides with `reduce`.

    Args:
        width: of the tokens.
        heads: of attention.
        blocks: how many.
        reduce: begin with a 3x3 convolution of stride 2 to `width`, and add positions.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self, width: int, heads: int, blocks: int, reduce: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.embed = None
        if reduce:
            self.embed = Convolution(
                width, 3, 2, use_bias=True, name="embed", dtype=self.dtype_policy
            )
        self.blocks = [
            TransformerBlock(width, heads, name=f"block_{i}", dtype=self.dtype_policy)
            for i in range(blocks)
        ]

    def build(self, input_shape: Shape) -> None:
        """Creates all weights."""
        if self.embed is not None:
            self.embed.build(input_shape)
        for block in self.blocks:
            block.build((None, None, self.width))
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Runs the blocks on the places of the maps."""
        x = inputs if self.embed is None else with_positions(self.embed(inputs))
        height, width = _sides(x)
        tokens = tf.reshape(x, [-1, height * width, self.width])
        for block in self.blocks:
            tokens = block(tokens)
        return tf.reshape(tokens, [-1, height, width, self.width])


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
