"""The one convolution of the SimCLRv2 networks: padding that does not depend on the image size."""

from typing import Any

import keras
import tensorflow as tf

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
