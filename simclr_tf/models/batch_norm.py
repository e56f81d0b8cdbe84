"""Batch normalisation as SimCLR trains it: fast on one device, one batch over all replicas.

Keras's own layer computes in many small operations; the fused kernel used here takes a fifth off
a training step on a CPU. Moving variances are biased (divided by n), as in the SimCLR code and in
its published checkpoints, whatever kernel computed them.
"""

from typing import Any

import keras
import tensorflow as tf

EPSILON = 1e-5


@keras.saving.register_keras_serializable(package="simclr_tf")
class BatchNorm(keras.layers.Layer):
    """Batch normalisation over all axes but the last (Ioffe and Szegedy 2015).

    Input and output: [..., C] of the compute dtype. Statistics and parameters are kept in the
    variable dtype, so that `mixed_bfloat16` normalises in float32.

    With `training=True` and `trainable=True` the batch is normalised by its own statistics, which
    also move the stored ones; in every other case the stored statistics are used and stay as they
    are. Under `tf.distribute`, `sync` makes the batch that of all replicas; otherwise each replica
    normalises its own part, and the stored statistics are the mean over replicas.

    Args:
        momentum: weight of the old moving statistics in each update.
        center: whether there is an offset (beta).
        scale: whether there is a scale (gamma).
        zero_gamma: start the scale at 0 instead of 1 (last normalisation of a residual block).
        sync: combine the batch statistics of all replicas.
        frozen_statistics_move: when `trainable=False`, train on batch statistics and go on moving
            the stored ones all the same. This is what the SimCLR TF2 code does with frozen blocks;
            it is here to reproduce its numbers.
        epsilon: added to the variance.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        *,
        momentum: float = 0.9,
        center: bool = True,
        scale: bool = True,
        zero_gamma: bool = False,
        sync: bool = True,
        frozen_statistics_move: bool = False,
        epsilon: float = EPSILON,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.center = center
        self.scale = scale
        self.zero_gamma = zero_gamma
        self.sync = sync
        self.frozen_statistics_move = frozen_statistics_move
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates scale, offset and moving statistics, each [C]."""
        shape = (input_shape[-1],)
        initial_gamma = "zeros" if self.zero_gamma else "ones"
        self.gamma = None
        if self.scale:
            self.gamma = self.add_weight(
                name="gamma", shape=shape, initializer=initial_gamma, autocast=False
            )
        self.beta = None
        if self.center:
            self.beta = self.add_weight(
                name="beta", shape=shape, initializer="zeros", autocast=False
            )
        self.moving_mean = self._moving_variable("moving_mean", shape, "zeros")
        self.moving_variance = self._moving_variable("moving_variance", shape, "ones")
        self.built = True

    def _moving_variable(
        self, name: str, shape: tuple[int | None], initializer: str
    ) -> keras.Variable:
        # Every replica keeps its own moving statistics; whoever reads them from outside the
        # replicas (a checkpoint, an evaluation) sees the mean. `add_weight` cannot say so.
        return keras.Variable(
            initializer,
            shape=shape,
            dtype=self.variable_dtype,
            trainable=False,
            autocast=False,
            synchronization="on_read",
            aggregation="mean",
            name=name,
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalises `inputs`."""
        if not (training and (self.trainable or self.frozen_statistics_move)):
            return self._normalize(
                inputs,
                tf.convert_to_tensor(self.moving_mean),
                tf.convert_to_tensor(self.moving_variance),
            )
        replicas = _num_replicas()
        if self._fused(inputs) and (replicas == 1 or not self.sync):
            outputs, mean, variance = self._fused_training(inputs)
        else:
            x = tf.cast(inputs, self.variable_dtype)
            mean, variance = _global_moments(x) if self.sync and replicas > 1 else _moments(x)
            outputs = self._affine(inputs, mean, variance)
        self._move(self.moving_mean, mean)
        self._move(self.moving_variance, variance)
        return outputs

    def _fused(self, inputs: tf.Tensor) -> bool:
        """True if the fused kernel takes this input: images in float32 or a half precision."""
        return inputs.shape.rank == 4 and self.variable_dtype == "float32"

    def _scale_and_offset(self) -> tuple[tf.Tensor, tf.Tensor]:
        if self.gamma is None:
            gamma = tf.ones_like(tf.convert_to_tensor(self.moving_mean))
        else:
            gamma = tf.convert_to_tensor(self.gamma)
        return gamma, tf.zeros_like(gamma) if self.beta is None else tf.convert_to_tensor(self.beta)

    def _fused_training(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Output, batch mean and biased batch variance by the fused kernel."""
        gamma, beta = self._scale_and_offset()
        empty = tf.zeros([0], gamma.dtype)
        result = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            mean=empty,
            variance=empty,
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel reports the variance divided by n - 1; for n = 1 that may be infinite.
        n = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], gamma.dtype)
        variance = tf.math.multiply_no_nan(result.batch_variance, (n - 1) / n)
        return result.y, result.batch_mean, variance

    def _normalize(self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
        """Normalises by given statistics, with the fused kernel where it applies."""
        if not self._fused(inputs):
            return self._affine(inputs, mean, variance)
        gamma, beta = self._scale_and_offset()
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=False,
        ).y

    def _affine(self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
        """Normalises by given statistics in the variable dtype; differentiable in all of them."""
        x = tf.cast(inputs, self.variable_dtype)
        gamma, beta = self._scale_and_offset()
        scale = gamma * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast((x - mean) * scale + beta, inputs.dtype)  # centred first: no digits lost

    def _move(self, moving: keras.Variable, batch: tf.Tensor) -> None:
        old = tf.convert_to_tensor(moving)
        moving.assign(old - (old - batch) * (1 - self.momentum))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "center": self.center,
            "scale": self.scale,
            "zero_gamma": self.zero_gamma,
            "sync": self.sync,
            "frozen_statistics_move": self.frozen_statistics_move,
            "epsilon": self.epsilon,
        }


def _num_replicas() -> int:
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context else 1


def _moments(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance [C] of this replica's batch, in two passes."""
    mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
    return mean, variance


def _global_moments(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance [C] over the batches of all replicas, in one reduction.

    Each replica hands out its own mean and variance, taken in two passes, and all are put together
    as Chan, Golub and LeVeque (1983, "Algorithms for computing the sample variance") do. The
    difference of the mean square and the squared mean, which one reduction would give too, loses
    the digits that both have in common: all of them where the mean is 1,000 times the deviation.
    """
    context = tf.distribute.get_replica_context()
    mean, variance = _moments(x)
    count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
    own = tf.stack([mean, variance, tf.fill(tf.shape(mean), count)])
    # A sum in which every replica has a row of its own hands the rows to all of them.
    place = tf.one_hot(
        context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=x.dtype
    )
    rows = context.all_reduce(tf.distribute.ReduceOp.SUM, place[:, None, None] * own)
    means, variances, counts = tf.unstack(rows, axis=1)
    shares = counts / tf.reduce_sum(counts, 0)
    mean = tf.reduce_sum(shares * means, 0)
    between = tf.math.squared_difference(means, mean)
    return mean, tf.reduce_sum(shares * (variances + between), 0)
