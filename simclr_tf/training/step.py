"""One training step under a strategy, and several of them in one call of the graph."""

import keras
import numpy as np
import tensorflow as tf

from data_prep.augment.photometry import to_float
from data_prep.augment.views import ViewConfig, device_views
from simclr_tf.distribution import Devices
from simclr_tf.losses.weight_decay import WeightDecay
from simclr_tf.methods.base import Method, extension_of
from simclr_tf.training.inputs import Batch


class Steps:
    """Steps of all replicas, several in one call of the graph; subclasses say what a step is.

    Args:
        devices: What the run is on.
    """

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._names: list[str] = []

    def _from_batch(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step of one replica on its part of a batch; its scalars."""
        raise NotImplementedError

    @tf.autograph.experimental.do_not_convert
    def _mean_row(self, batch: Batch) -> tf.Tensor:
        """One step on all replicas; its scalars, means over replicas, sorted by name."""
        strategy = self._devices.strategy
        per_replica = strategy.run(self._from_batch, (batch,))
        self._names = sorted(per_replica)
        means = (strategy.reduce("MEAN", per_replica[name], axis=None) for name in self._names)
        return tf.stack([tf.cast(mean, tf.float32) for mean in means])

    @tf.function
    def _loop(self, iterator: tf.distribute.DistributedIterator, steps: tf.Tensor) -> tf.Tensor:
        values = tf.TensorArray(tf.float32, size=steps, element_shape=[None])
        for i in tf.range(steps):
            values = values.write(i, self._mean_row(next(iterator)))
        return values.stack()

    def run(self, iterator: tf.distribute.DistributedIterator, steps: int) -> dict[str, np.ndarray]:
        """Takes some steps.

        Args:
            iterator: Over training batches.
            steps: How many; a new number does not trace the graph anew.

        Returns:
            The value [steps] of every metric, means over replicas.
        """
        values = self._loop(iterator, tf.constant(steps)).numpy()
        return {name: values[:, i] for i, name in enumerate(self._names)}


class TrainStep(Steps):
    """Runs training steps: photometry, losses, gradients, update.

    The gradients of all replicas are summed, so the loss is divided by their number once.

    Args:
        model: The network, built.
        method: The losses.
        optimizer: The optimizer, built on the trainable variables.
        weight_decay: The L2 term of the loss.
        views: The augmentation whose device half runs here; None if batches hold images.
        devices: What the run is on.
        jit_compile: Compile losses and gradients with XLA.
        small_views: The augmentation of small crops, if batches hold any.
    """

    def __init__(
        self,
        model: keras.Model,
        method: Method,
        optimizer: keras.optimizers.Optimizer,
        weight_decay: WeightDecay,
        views: ViewConfig | None,
        devices: Devices,
        jit_compile: bool = False,
        small_views: ViewConfig | None = None,
    ) -> None:
        super().__init__(devices)
        self._model, self._method, self._optimizer = model, method, optimizer
        self._weight_decay, self._views = weight_decay, views
        self._small_views, self._extension = small_views, extension_of(method)
        self._trainable = [*model.trainable_variables, *self._extension.trainable_variables]
        # XLA wants static shapes, which the photometry has not, and no update across replicas.
        self._gradients = (
            tf.function(self._compute, jit_compile=True) if jit_compile else self._compute
        )

    def _compute(
        self, images: tf.Tensor, labels: tf.Tensor, *small: tf.Tensor
    ) -> tuple[list[tf.Tensor | None], dict[str, tf.Tensor], tuple[tf.Tensor, ...]]:
        variables = [v.value for v in self._trainable]
        with tf.GradientTape() as tape:
            outputs = self._method(images, labels, *small)
            decay = tf.cast(self._weight_decay(), outputs.loss.dtype)
            total = outputs.loss + decay
            scaled = total / self._devices.num_replicas
        gradients = tape.gradient(scaled, variables)
        metrics = {"total_loss": total, "weight_decay": decay, **outputs.metrics}
        return gradients, metrics, outputs.carried

    def replica_step(
        self, images: tf.Tensor, labels: tf.Tensor, *small: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Updates the network from one replica's views.

        Args:
            images: Views [V, b, S, S, C], float in [0, 1].
            labels: Class numbers [b], -1 = none.
            *small: Small crops [n, b, s, s, C], if the method takes any.

        Returns:
            The step's scalars, taken before the update.
        """
        gradients, metrics, carried = self._gradients(images, labels, *small)
        pairs = zip(gradients, self._trainable, strict=True)
        known = [(g, v) for g, v in pairs if g is not None]
        metrics["learning_rate"] = tf.convert_to_tensor(self._optimizer.learning_rate)
        self._optimizer.apply([g for g, _ in known], [v for _, v in known])
        self._extension.after_update(carried)
        return metrics

    def _from_batch(self, batch: Batch) -> dict[str, tf.Tensor]:
        if "features" in batch:  # of frozen stages, computed before; one view
            return self.replica_step(batch["features"][tf.newaxis], batch["label"])
        if self._views is None:  # augmented on the host; one view
            images = tf.clip_by_value(to_float(batch["image"]), 0.0, 1.0)
            return self.replica_step(images[tf.newaxis], batch["label"])
        images = _by_view(batch["views"], batch["draws"], self._views)
        if self._small_views is None:
            return self.replica_step(images, batch["label"])
        small = _by_view(batch["small_views"], batch["small_draws"], self._small_views)
        return self.replica_step(images, batch["label"], small)


def _by_view(views: tf.Tensor, draws: tf.Tensor, config: ViewConfig) -> tf.Tensor:
    """The finished views [V, b, S, S, C] of host views [b, V, S, S, C]."""
    return tf.transpose(device_views(views, draws, config), [1, 0, 2, 3, 4])
