"""A classifier rebuilt from Keras's own layers, for use without this package.

Weights and results are the same. Where a layer here has no equal in Keras it becomes several:
padding of its own before strided convolutions, the two streams of a selective kernel, a backbone's
`preprocess_input` as a 1x1 convolution.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional

from finetune.classifier import Classifier, FeatureScaling, SimCLRBackbone
from finetune.keras_backbones import StandardizeInput
from simclr_tf.models.backbone import StagedBackbone
from simclr_tf.models.batch_norm import BatchNorm
from simclr_tf.models.blocks import (
    Convolution,
    ResidualBlock,
    SelectiveKernel,
    Shortcut,
    SqueezeExcitation,
)
from simclr_tf.models.keras_applications import PreprocessInput, pixel_affine
from simclr_tf.models.keras_backbone import KerasBackbone
from simclr_tf.models.resnet import BlockGroup, Stem
from simclr_tf.models.simclr import SimCLREncoder, SimCLRModel
from simclr_tf.models.vit import (
    Attention,
    PatchEmbedding,
    TransformerBlock,
    TransformerGroup,
    position_embedding,
)

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
        tokens = _transformer_block(block, tokens)
    return layers.Reshape((height, width, dim))(tokens)


def _with_positions(maps: Symbol) -> Symbol:
    """Adds the position embedding: the bias of a layer that multiplies by 1."""
    _, height, width, dim = maps.shape
    add = layers.EinsumDense("bhwd,d->bhwd", (height, width, dim), bias_axes="hwd")
    y = add(maps)
    add.set_weights([np.ones(dim), _array(position_embedding(height, width, dim))])
    return y


def _transformer_block(block: TransformerBlock, x: Symbol) -> Symbol:
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


def standard_model(model: SimCLRModel | Classifier, image_size: int) -> keras.Model:
    """Rebuilds a network with a classification head.

    Args:
        model: The network.
        image_size: Side S of its input.

    Returns:
        Images [B, S, S, C] float32 in [0, 1] -> `probabilities` and `logits` [B, K], `features`
        [B, D]; a float32 model of nothing but `keras.layers`.

    Raises:
        TypeError: A layer that is not known here.
    """
    if isinstance(model, Classifier):
        return _classifier(model)
    images = keras.Input((image_size, image_size, model.image_channels), name="images")
    features = _encoder(model.encoder, images, 0)
    hidden = _projection(model.encoder, features, model.selected_layer)
    head = model.supervised_head
    if head is None:
        raise TypeError("the network has no supervised head")
    return _joined(images, features, _dense(head.dense, hidden))


def _classifier(model: Classifier) -> keras.Model:
    images = keras.Input(model.image_shape, name="images")
    features = x = _standard(model.backbone, images)
    if model.head.scaling is not None:
        x = _scaled(model.head.scaling, x)
    for layer in model.head.layers:
        x = _dense(layer, x)
    return _joined(images, features, x)


def _scaled(scaling: FeatureScaling, x: Symbol) -> Symbol:
    # Keras' Normalization keeps its numbers outside the graph, where ONNX does not find them; and
    # both steps in one would lose digits of features that vary little.
    mean, variance = _array(scaling.adapt_mean), _array(scaling.adapt_variance)
    x = layers.Rescaling(1.0, -mean, dtype="float32")(x)
    return layers.Rescaling(1 / np.sqrt(variance), dtype="float32")(x)


def _joined(images: Symbol, features: Symbol, logits: Symbol) -> keras.Model:
    probabilities = layers.Softmax(dtype="float32")(logits)
    outputs = {"probabilities": probabilities, "logits": logits, "features": features}
    return keras.Model(images, outputs, name="classifier")


def _standard(layer: keras.layers.Layer, x: Symbol) -> Symbol:
    """The output of a layer of any kind."""
    if isinstance(layer, SimCLRBackbone):
        return _encoder(layer.encoder, x, layer.selected_layer)
    if isinstance(layer, PreprocessInput | StandardizeInput):
        return _affine(layer, x)
    if isinstance(layer, BatchNorm):
        return _norm(layer, x)
    if isinstance(layer, keras.Sequential):
        for inner in layer.layers:
            x = _standard(inner, x)
        return x
    if isinstance(layer, Functional):
        return _functional(layer)(x)
    if not type(layer).__module__.startswith("keras."):
        raise TypeError(f"{type(layer).__name__} cannot be made of Keras's own layers")
    return layer(x)


def _functional(model: keras.Model) -> keras.Model:
    """The same graph with the same layers, but for those that are not Keras's own."""

    def called(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Symbol:
        own = type(layer).__module__.startswith("keras.") and not isinstance(layer, Functional)
        return layer(*args, **kwargs) if own else _standard(layer, *args)

    return keras.models.clone_model(model, clone_function=lambda x: x, call_function=called)


def _affine(function: Callable[[Any], Any], x: Symbol) -> Symbol:
    """Turns a function that is affine in the channels of a pixel into a 1x1 convolution.

    Raises:
        TypeError: It is not: it normalises every image by itself.
    """
    kernel, bias = pixel_affine(function, x.shape[-1])
    conv = layers.Conv2D(kernel.shape[-1], 1, name="inputs", dtype="float32")
    return _filled(conv, x, [kernel[np.newaxis, np.newaxis], bias])


def _encoder(encoder: SimCLREncoder, x: Symbol, projection_layers: int) -> Symbol:
    """Representation, or the output of a layer of the projection head."""
    x = layers.GlobalAveragePooling2D()(_backbone(encoder.backbone(), x))
    return _projection(encoder, x, projection_layers)


def _projection(encoder: SimCLREncoder, x: Symbol, number: int) -> Symbol:
    for layer in encoder.projection_head.projection_layers[:number]:
        x = _norm(layer.norm, _dense(layer.dense, x))
        if not layer.last:
            x = layers.ReLU()(x)
    return x


def _backbone(backbone: StagedBackbone, x: Symbol) -> Symbol:
    """The maps of the last block group."""
    if isinstance(backbone, KerasBackbone):
        x = _affine(backbone.prepare, x)
    for stage in backbone.stages.values():
        x = _stage(stage, x)
    return x


def _stage(stage: keras.layers.Layer, x: Symbol) -> Symbol:
    if isinstance(stage, Stem):
        return _stem(stage, x)
    if isinstance(stage, BlockGroup):
        for block in stage.blocks:
            x = _block(block, x)
        return x
    if isinstance(stage, PatchEmbedding):
        return patches(stage, x)
    if isinstance(stage, TransformerGroup):
        return transformer_group(stage, x if stage.embed is None else _conv(stage.embed, x))
    return _standard(stage, x)


def _stem(stem: Stem, x: Symbol) -> Symbol:
    for conv, norm in zip(stem.convs, stem.norms, strict=True):
        x = layers.ReLU()(_norm(norm, _conv(conv, x)))
    if stem.pooled:
        x = layers.MaxPooling2D(3, 2, "same")(x)
    return x


def _block(block: ResidualBlock, x: Symbol) -> Symbol:
    shortcut = x if block.shortcut is None else _shortcut(block.shortcut, x)
    for layer in block.main:
        if isinstance(layer, Convolution):
            x = _conv(layer, x)
        elif isinstance(layer, SelectiveKernel):
            x = _selective(layer, x)
        else:
            x = _norm(layer, x)
            x = x if layer is block.main[-1] else layers.ReLU()(x)
    if block.excite is not None:
        x = _excite(block.excite, x)
    return layers.ReLU()(layers.Add()([x, shortcut]))


def _shortcut(shortcut: Shortcut, x: Symbol) -> Symbol:
    if shortcut.pooled and shortcut.strides == 1:
        x = layers.AveragePooling2D(2, 1, "same")(x)
    elif shortcut.pooled:
        x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
        x = layers.AveragePooling2D(2, 2, "valid")(x)
    return _norm(shortcut.norm, _conv(shortcut.conv, x))


def _selective(layer: SelectiveKernel, x: Symbol) -> Symbol:
    first, second = (
        layers.ReLU()(_norm(layer.streams_norm, _conv(layer.streams, x, half), half))
        for half in _halves(layer.filters)
    )
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(layers.Add()([first, second]))
    squeezed = layers.ReLU()(_norm(layer.squeeze_norm, _conv(layer.squeeze, pooled)))
    mix = [_conv(layer.mix, squeezed, half) for half in _halves(layer.filters)]
    weight = layers.Activation("sigmoid")(layers.Subtract()(mix))
    difference = layers.Subtract()([first, second])
    return layers.Add()([second, layers.Multiply()([weight, difference])])


def _halves(filters: int) -> tuple[slice, slice]:
    return slice(0, filters), slice(filters, 2 * filters)


def _excite(layer: SqueezeExcitation, x: Symbol) -> Symbol:
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    hidden = layers.ReLU()(_conv(layer.reduce, pooled))
    gate = layers.Activation("sigmoid")(_conv(layer.expand, hidden))
    return layers.Multiply()([x, gate])


def _conv(layer: Convolution, x: Symbol, channels: slice = slice(None)) -> Symbol:
    """A convolution, or those of its output channels."""
    weights = [keras.ops.convert_to_numpy(layer.kernel)[..., channels]]
    if layer.bias is not None:
        weights.append(keras.ops.convert_to_numpy(layer.bias)[channels])
    padding = "same"
    if layer.strides > 1 and layer.kernel_size > 1:
        before = (layer.kernel_size - 1) // 2
        sides = (before, layer.kernel_size - 1 - before)
        x, padding = layers.ZeroPadding2D((sides, sides))(x), "valid"
    conv = layers.Conv2D(
        weights[0].shape[-1], layer.kernel_size, layer.strides, padding, use_bias=layer.use_bias
    )
    return _filled(conv, x, weights)


def _norm(layer: BatchNorm, x: Symbol, channels: slice = slice(None)) -> Symbol:
    norm = layers.BatchNormalization(
        momentum=layer.momentum, epsilon=layer.epsilon, center=layer.center, scale=layer.scale
    )
    return _filled(norm, x, [keras.ops.convert_to_numpy(v)[channels] for v in layer.variables])


def _dense(layer: keras.layers.Dense, x: Symbol) -> Symbol:
    dense = layers.Dense(layer.units, layer.activation, use_bias=layer.use_bias)
    return _filled(dense, x, layer.get_weights())


def _filled(layer: keras.layers.Layer, x: Symbol, weights: list[np.ndarray]) -> Symbol:
    y = layer(x)
    layer.set_weights(weights)
    return y
