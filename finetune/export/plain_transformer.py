"""Vision transformers rebuilt from Keras's own layers, see `standard_layers.py`."""

from typing import Any

import keras
import numpy as np

from simclr_tf.models.transformer import (
    Attention,
    TransformerBlock,
    TransformerGroup,
    position_embedding,
)
from simclr_tf.models.vit import PatchEmbedding

Symbol = Any  # a keras.KerasTensor

layers = keras.layers


def patches(stem: PatchEmbedding, images: Symbol) -> Symbol:
    """The tokens of patches with their positions; images of a known size."""
    x = layers.Rescaling(2.0, -1.0)(images)
    conv = layers.Conv2D(stem.width, stem.patch_size, stem.patch_size, "same")
    y = conv(x)
    conv.set_weights([_array(stem.kernel), _array(stem.bias)])
    return _with_positions(y)


def transformer_group(group: TransformerGroup, x: Symbol) -> Symbol:
    """The blocks of a group on maps of a known size, after its convolution if it has one."""
    if group.embed is not None:
        x = _with_positions(x)
    _, height, width, dim = x.shape
    tokens = layers.Reshape((height * width, dim))(x)
    for block in group.blocks:
        tokens = _block(block, tokens)
    return layers.Reshape((height, width, dim))(tokens)


def _with_positions(maps: Symbol) -> Symbol:
    """Adds the position embedding: the bias of a layer that multiplies by 1."""
    _, height, width, dim = maps.shape
    add = layers.EinsumDense("bhwd,d->bhwd", (height, width, dim), bias_axes="hwd")
    y = add(maps)
    add.set_weights([np.ones(dim), _array(position_embedding(height, width, dim))])
    return y


def _block(block: TransformerBlock, x: Symbol) -> Symbol:
    attended = _attention(block.attention, _same(block.attention_norm, x))
    x = layers.Add()([x, attended])
    hidden = _same(block.hidden, _same(block.mlp_norm, x))
    return layers.Add()([x, _same(block.output_layer, hidden)])


def _same(layer: keras.layers.Layer, x: Symbol) -> Symbol:
    """A copy of one of Keras's own layers."""
    copy = type(layer).from_config({**layer.get_config(), "name": None})
    y = copy(x)
    copy.set_weights(layer.get_weights())
    return y


def _attention(layer: Attention, x: Symbol) -> Symbol:
    each = layer.width // layer.heads
    attention = layers.MultiHeadAttention(layer.heads, each)
    y = attention(x, x)
    kernel, bias = (_array(v) for v in layer.query_key_value.variables)
    kernels = kernel.reshape(layer.width, 3, layer.heads, each)
    biases = bias.reshape(3, layer.heads, each)
    kernel_out, bias_out = (_array(v) for v in layer.output_layer.variables)
    weights = [part for i in range(3) for part in (kernels[:, i], biases[i])]
    attention.set_weights([*weights, kernel_out.reshape(layer.heads, each, -1), bias_out])
    return y


def _array(value: Any) -> np.ndarray:
    array: np.ndarray = keras.ops.convert_to_numpy(value)
    return array
