"""Convolution and residual blocks of SimCLRv2: basic, bottleneck, selective kernels, SE.

Every layer lists its convolutions and normalisations by `creation_order()`, the order by which
checkpoints number them: the shortcut first, then the main path, then squeeze-and-excitation.
(A method, because Keras files walk through attributes and properties.)
"""

from typing import Any

import keras
import tensorflow as tf

from simclr_tf.models.architectures import ResNetArchitecture
from simclr_tf.models.batch_norm import BatchNorm

_NARROW = 8  # channels


@keras.saving.register_keras_serializable(package="simclr_tf")
class Convolution(keras.layers.Layer):
    """2-D convolution with the padding of the SimCLR code.

    Input [B, H, W, C], output [B, ceil(H / stride), ceil(W / stride), filters]. Stride 1 pads
    "SAME"; larger strides pad (k - 1) // 2 before and the rest of k - 1 after, so that the grid
    stays the same for even and odd sizes (TensorFlow's "SAME" shifts it).

    Args:
        filters: output channels.
        kernel_size: side of the square kernel.
        strides: step of the kernel.
        use_bias: whether there is a bias (only squeeze-and-excitation has one).
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        use_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.use_bias = use_bias

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates kernel [k, k, C, filters] (variance scaling, fan-in) and bias [filters]."""
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, input_shape[-1], self.filters),
            initializer=keras.initializers.VarianceScaling(),
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Convolves `inputs`."""
        kernel = tf.convert_to_tensor(self.kernel)
        if self.kernel_size == 1 and self.strides > 1 and inputs.shape[-1] <= _NARROW:
            # The CPU kernel of this gradient writes past its memory for narrow inputs and odd
            # batches (TensorFlow 2.21, AVX-512), so take the pixels that count first.
            taken = inputs[:, :: self.strides, :: self.strides]
            outputs = tf.nn.conv2d(taken, kernel, 1, "SAME")
        elif self.strides == 1 or self.kernel_size == 1:
            outputs = tf.nn.conv2d(inputs, kernel, self.strides, "SAME")
        else:
            # Padding by an operation of its own: the gradient of a convolution with explicit
            # padding has no fast CPU kernel (5 times slower in float32, 25 times in bfloat16).
            before = (self.kernel_size - 1) // 2
            spatial = [before, self.kernel_size - 1 - before]
            padded = tf.pad(inputs, [[0, 0], spatial, spatial, [0, 0]])
            outputs = tf.nn.conv2d(padded, kernel, self.strides, "VALID")
        return outputs if self.bias is None else outputs + tf.convert_to_tensor(self.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """[B, ceil(H / stride), ceil(W / stride), filters]."""
        sides = [None if side is None else -(-side // self.strides) for side in input_shape[1:3]]
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "use_bias": self.use_bias,
        }


Shape = tuple[int | None, ...]


def build_chain(layers: list[keras.layers.Layer], input_shape: Shape) -> Shape:
    """Builds layers that follow each other; returns the shape that comes out."""
    shape = input_shape
    for layer in layers:
        layer.build(shape)
        shape = layer.compute_output_shape(shape)
    return shape


def leaves(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Convolutions and normalisations of a layer, or the layer itself if it is one."""
    if isinstance(layer, Convolution | BatchNorm):
        return [layer]
    return layer.creation_order()


class SqueezeExcitation(keras.layers.Layer):
    """Channel gates from global averages (Hu et al. 2018); the shape stays [B, H, W, C]."""

    def __init__(self, hidden: int, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reduce = Convolution(hidden, 1, use_bias=True, name="reduce", dtype=self.dtype_policy)
        self.expand = Convolution(
            channels, 1, use_bias=True, name="expand", dtype=self.dtype_policy
        )

    def creation_order(self) -> list[keras.layers.Layer]:
        """Convolutions by their numbers in checkpoints."""
        return [self.reduce, self.expand]

    def build(self, input_shape: Shape) -> None:
        """Creates both 1x1 convolutions."""
        build_chain([self.reduce, self.expand], input_shape)
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Scales every channel by its gate."""
        pooled = tf.reduce_mean(inputs, [1, 2], keepdims=True)
        return inputs * tf.sigmoid(self.expand(tf.nn.relu(self.reduce(pooled))))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape


class SelectiveKernel(keras.layers.Layer):
    """Two 3x3 streams, mixed per channel by global features (Li et al. 2019, as in SimCLRv2).

    [B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), filters]. Both streams come from one
    convolution with twice the filters.
    """

    def __init__(
        self, filters: int, hidden: int, strides: int, norm: dict[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        dtype = self.dtype_policy
        self.filters = filters
        self.streams = Convolution(2 * filters, 3, strides, name="streams", dtype=dtype)
        self.streams_norm = BatchNorm(**norm, name="streams_norm", dtype=dtype)
        self.squeeze = Convolution(hidden, 1, name="squeeze", dtype=dtype)
        self.squeeze_norm = BatchNorm(**norm, name="squeeze_norm", dtype=dtype)
        self.mix = Convolution(2 * filters, 1, name="mix", dtype=dtype)

    def creation_order(self) -> list[keras.layers.Layer]:
        """Convolutions and normalisations by their numbers in checkpoints."""
        return [self.streams, self.streams_norm, self.squeeze, self.squeeze_norm, self.mix]

    def build(self, input_shape: Shape) -> None:
        """Creates the three convolutions and two normalisations."""
        shape = build_chain([self.streams, self.streams_norm], input_shape)
        build_chain([self.squeeze, self.squeeze_norm, self.mix], (*shape[:-1], self.filters))
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Mixes the two streams."""
        x = tf.nn.relu(self.streams_norm(self.streams(inputs), training=training))
        first, second = tf.split(x, 2, axis=-1)
        pooled = tf.reduce_mean(first + second, [1, 2], keepdims=True)
        squeezed = tf.nn.relu(self.squeeze_norm(self.squeeze(pooled), training=training))
        logits_first, logits_second = tf.split(self.mix(squeezed), 2, axis=-1)
        # The softmax over two streams is the logistic function of their difference.
        weight = tf.sigmoid(logits_first - logits_second)
        return second + weight * (first - second)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The strided convolution's shape with `filters` channels."""
        return (*self.streams.compute_output_shape(input_shape)[:-1], self.filters)


class Shortcut(keras.layers.Layer):
    """Projection shortcut: strided 1x1 convolution, or average pooling before it (ResNet-D)."""

    def __init__(
        self, filters: int, strides: int, pooled: bool, norm: dict[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.strides = strides
        self.pooled = pooled
        self.conv = Convolution(
            filters, 1, 1 if pooled else strides, name="conv", dtype=self.dtype_policy
        )
        self.norm = BatchNorm(**norm, name="norm", dtype=self.dtype_policy)

    def creation_order(self) -> list[keras.layers.Layer]:
        """Convolution and normalisation."""
        return [self.conv, self.norm]

    def build(self, input_shape: Shape) -> None:
        """Creates the convolution and its normalisation."""
        build_chain([self.conv, self.norm], input_shape)
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), filters]."""
        x = self._pool(inputs) if self.pooled else inputs
        return self.norm(self.conv(x), training=training)

    def _pool(self, inputs: tf.Tensor) -> tf.Tensor:
        if self.strides == 1:
            return tf.nn.avg_pool2d(inputs, 2, 1, "SAME")
        # At odd sizes a row and a column of zeros take part in the last averages.
        return tf.nn.avg_pool2d(tf.pad(inputs, [[0, 0], [0, 1], [0, 1], [0, 0]]), 2, 2, "VALID")


class ResidualBlock(keras.layers.Layer):
    """A basic (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1) block of one block group.

    [B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), filters * expansion].

    Args:
        architecture: the whole network's numbers.
        filters: inner width.
        strides: of the block's 3x3 convolution (of the first one in a basic block).
        project: whether the shortcut has a convolution (first block of a group).
        norm: arguments of every `BatchNorm`.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        architecture: ResNetArchitecture,
        filters: int,
        strides: int,
        project: bool,
        norm: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        arch = architecture
        out_filters = filters * arch.expansion
        self.shortcut = None
        if project:
            self.shortcut = Shortcut(
                out_filters,
                strides,
                arch.sk_ratio > 0,
                norm,
                name="shortcut",
                dtype=self.dtype_policy,
            )
        self.main = self._main_path(arch, filters, strides, norm)
        self.excite = None
        if arch.se_ratio > 0:
            self.excite = SqueezeExcitation(
                arch.se_hidden(filters), out_filters, name="excite", dtype=self.dtype_policy
            )

    def creation_order(self) -> list[keras.layers.Layer]:
        """Convolutions and normalisations by their numbers in checkpoints."""
        parts = [self.shortcut, *self.main, self.excite]
        return [leaf for part in parts if part is not None for leaf in leaves(part)]

    def _main_path(
        self, arch: ResNetArchitecture, filters: int, strides: int, norm: dict[str, Any]
    ) -> list[keras.layers.Layer]:
        """Convolutions and normalisations of the main path, selective kernels among them."""
        dtype = self.dtype_policy

        def conv(i: int, width: int, kernel: int, step: int = 1) -> Convolution:
            return Convolution(width, kernel, step, name=f"conv_{i}", dtype=dtype)

        def bn(i: int, last: bool = False) -> BatchNorm:
            return BatchNorm(**norm, zero_gamma=last, name=f"norm_{i}", dtype=dtype)

        if not arch.bottleneck:
            return [conv(0, filters, 3, strides), bn(0), conv(1, filters, 3), bn(1, last=True)]
        if arch.sk_ratio > 0:
            middle: list[keras.layers.Layer] = [
                SelectiveKernel(
                    filters, arch.sk_hidden(filters), strides, norm, name="selective", dtype=dtype
                )
            ]
        else:
            middle = [conv(1, filters, 3, strides), bn(1)]
        outer = [conv(2, filters * arch.expansion, 1), bn(2, last=True)]
        return [conv(0, filters, 1), bn(0), *middle, *outer]

    def build(self, input_shape: Shape) -> None:
        """Creates all weights."""
        if self.shortcut is not None:
            self.shortcut.build(input_shape)
        shape = build_chain(self.main, input_shape)
        if self.excite is not None:
            self.excite.build(shape)
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The block's output after addition and ReLU."""
        shortcut = inputs if self.shortcut is None else self.shortcut(inputs, training=training)
        x = inputs
        for layer in self.main:
            if isinstance(layer, Convolution):
                x = layer(x)
            else:
                x = layer(x, training=training)
                if isinstance(layer, BatchNorm) and layer is not self.main[-1]:
                    x = tf.nn.relu(x)
        if self.excite is not None:
            x = self.excite(x)
        return tf.nn.relu(x + shortcut)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The main path's shape."""
        shape = input_shape
        for layer in self.main:
            shape = layer.compute_output_shape(shape)
        return shape
