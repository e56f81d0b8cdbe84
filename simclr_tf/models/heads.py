"""Heads on the representation: projection, linear classifier, and the predictors of methods."""

from typing import Any

import keras
import tensorflow as tf

from simclr_tf.models.architectures import ProjectionArchitecture
from simclr_tf.models.batch_norm import BatchNorm
from simclr_tf.models.blocks import Shape

DENSE_STDDEV = 0.01


class ProjectionLayer(keras.layers.Layer):
    """Dense layer without bias, BatchNorm, and (unless it is the last) ReLU."""

    def __init__(self, units: int, last: bool, norm: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.last = last
        self.dense = keras.layers.Dense(
            units,
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=DENSE_STDDEV),
            name="dense",
            dtype=self.dtype_policy,
        )
        self.norm = BatchNorm(**norm, center=not last, name="norm", dtype=self.dtype_policy)

    def creation_order(self) -> list[keras.layers.Layer]:
        """Dense layer and normalisation."""
        return [self.dense, self.norm]

    def build(self, input_shape: Shape) -> None:
        """Creates kernel, scale and offset."""
        self.dense.build(input_shape)
        self.norm.build((input_shape[0], self.dense.units))
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False, normalize: bool = True) -> tf.Tensor:
        """[B, d] -> [B, units]."""
        outputs = self.dense(inputs)
        if normalize:
            outputs = self.norm(outputs, training=training)
        return outputs if self.last else tf.nn.relu(outputs)


@keras.saving.register_keras_serializable(package="simclr_tf")
class ProjectionHead(keras.layers.Layer):
    """The projection head g (SimCLRv2, section 2; `none` and `linear` as in SimCLR, figure 8).

    Call: representation [B, D] -> list of its input and the output of every layer that ran (hidden
    ones after ReLU), the list that `ft_proj_selector` indexes. Float32, or float64 under float64.

    Args:
        mode: `nonlinear`, `linear` or `none`.
        out_dim: length of the projection.
        num_layers: of the nonlinear head.
        batch_norm_decay: weight of the old moving statistics.
        global_bn: normalise over the batch of all replicas.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        mode: str = "nonlinear",
        out_dim: int = 128,
        num_layers: int = 3,
        batch_norm_decay: float = 0.9,
        global_bn: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.architecture = ProjectionArchitecture(mode, out_dim, num_layers)
        self.batch_norm_decay = batch_norm_decay
        self.global_bn = global_bn
        self.projection_layers: list[ProjectionLayer] = []

    def build(self, input_shape: tuple[int | None, int]) -> None:
        """Creates all layers; hidden ones are as wide as the input."""
        arch = self.architecture
        norm = {"momentum": self.batch_norm_decay, "sync": self.global_bn}
        shape: Shape = tuple(input_shape)
        for i in range(arch.depth):
            layer = ProjectionLayer(
                arch.layer_dim(i, input_shape[-1]),
                arch.is_last(i),
                norm,
                name=arch.layer_name(i),
                dtype=self.dtype_policy,
            )
            layer.build(shape)
            self.projection_layers.append(layer)
            shape = (*shape[:-1], layer.dense.units)
        self.built = True

    def creation_order(self) -> list[keras.layers.Layer]:
        """Dense layers and normalisations in the order by which checkpoints number them."""
        return [leaf for layer in self.projection_layers for leaf in layer.creation_order()]

    def call(
        self,
        inputs: tf.Tensor,
        training: bool = False,
        num_layers: int | None = None,
        normalize_output: bool = True,
    ) -> list[tf.Tensor]:
        """Runs the first `num_layers` layers, by default all of them.

        Without `normalize_output` the last layer's normalisation neither runs nor moves: in
        inference a fresh one changes nothing.
        """
        x = inputs
        hiddens = [tf.cast(inputs, self.variable_dtype)]
        for layer in self.projection_layers[:num_layers]:
            x = layer(x, training=training, normalize=normalize_output or not layer.last)
            hiddens.append(tf.cast(x, self.variable_dtype))
        return hiddens

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        return {
            **super().get_config(),
            "mode": self.architecture.mode,
            "out_dim": self.architecture.out_dim,
            "num_layers": self.architecture.num_layers,
            "batch_norm_decay": self.batch_norm_decay,
            "global_bn": self.global_bn,
        }


@keras.saving.register_keras_serializable(package="simclr_tf")
class SupervisedHead(keras.layers.Layer):
    """Linear classifier: [B, d] -> logits [B, num_classes], never in half precision.

    Args:
        num_classes: number of classes.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.dense = keras.layers.Dense(
            num_classes,
            kernel_initializer=keras.initializers.RandomNormal(stddev=DENSE_STDDEV),
            name="dense",
            dtype=self.variable_dtype,
        )

    def creation_order(self) -> list[keras.layers.Layer]:
        """The dense layer."""
        return [self.dense]

    def build(self, input_shape: Shape) -> None:
        """Creates kernel [d, num_classes] and bias [num_classes]."""
        self.dense.build(input_shape)
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The logits."""
        return self.dense(inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """[B, num_classes]."""
        return (*input_shape[:-1], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        return {**super().get_config(), "num_classes": self.num_classes}


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
