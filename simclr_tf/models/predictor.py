"""The small heads that methods train beside the network and that nobody needs afterwards."""

from typing import Any

import keras
import tensorflow as tf

from simclr_tf.models.batch_norm import BatchNorm


class Predictor(keras.layers.Layer):
    """Two dense layers that predict one view's projection from another's (BYOL, SimSiam).

    Dense, BatchNorm, ReLU, dense: [B, dim] -> [B, dim].

    Args:
        dim: length of the projection.
        hidden_dim: width in between.
        batch_norm_decay: weight of the old moving statistics.
        global_bn: normalise over the batch of all replicas.
        **kwargs: of `keras.layers.Layer`.
    """

    built: bool

    def __init__(
        self, dim: int, hidden_dim: int, batch_norm_decay: float, global_bn: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.hidden = keras.layers.Dense(hidden_dim, use_bias=False, name="hidden", dtype=policy)
        self.norm = BatchNorm(momentum=batch_norm_decay, sync=global_bn, name="norm", dtype=policy)
        self.output_layer = keras.layers.Dense(dim, name="output", dtype=policy)
        self.build((None, dim))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the kernels, the bias, scale and offset."""
        if self.built:
            return
        self.hidden.build(input_shape)
        self.norm.build((None, self.hidden.units))
        self.output_layer.build((None, self.hidden.units))
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, dim] -> [B, dim]."""
        hidden = tf.nn.relu(self.norm(self.hidden(inputs), training=training))
        return self.output_layer(hidden)


class Prototypes(keras.layers.Layer):
    """Directions that projections are compared with (SwAV): [B, dim] -> cosines [B, number].

    Args:
        number: of prototypes.
        dim: length of the projection.
        **kwargs: of `keras.layers.Layer`.
    """

    built: bool

    def __init__(self, number: int, dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number
        self.build((None, dim))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the directions [number, dim], of unit length."""
        if self.built:
            return
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.number, input_shape[-1]),
            initializer=unit_rows,
            autocast=False,
        )
        self.built = True

    def unit_kernel(self) -> tf.Tensor:
        """The directions at unit length [number, dim]."""
        return tf.math.l2_normalize(tf.convert_to_tensor(self.kernel), 1)

    def call(self, inputs: tf.Tensor, frozen: tf.Tensor | bool = False) -> tf.Tensor:
        """Cosines, in full precision; no gradient reaches the directions while `frozen`."""
        kernel = tf.convert_to_tensor(self.kernel)
        kernel = tf.where(frozen, tf.stop_gradient(kernel), kernel)
        unit = tf.math.l2_normalize(tf.cast(inputs, kernel.dtype), 1)
        return tf.matmul(unit, kernel, transpose_b=True)


def unit_rows(shape: tuple[int, ...], dtype: str) -> tf.Tensor:
    """Initial values: random directions [n, d]."""
    return tf.math.l2_normalize(keras.initializers.RandomNormal(stddev=1.0)(shape, dtype), 1)
