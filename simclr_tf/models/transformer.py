"""Transformer blocks on feature maps, and where in the image a token lies.

Blocks normalise first (Dosovitskiy et al. 2021, equations 2 and 3); initial values are those of
MoCo v3 (Chen et al. 2021): Xavier's, with query, key and value each for itself, and no biases.
"""

import math
from typing import Any

import keras
import tensorflow as tf

from simclr_tf.models.blocks import Shape, build_chain
from simclr_tf.models.convolution import Convolution

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
