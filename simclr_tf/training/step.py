"""One training step under a strategy, and several of them in one call of the graph."""

from functools import partial

import keras
import numpy as np
import tensorflow as tf

from data_prep.augment.color import to_float
from data_prep.augment.views import ViewConfig, device_views
from simclr_tf.losses.weight_decay import WeightDecay
from simclr_tf.methods.base import Method, Pretraining, extension_of
from simclr_tf.training.batches import Batch
from simclr_tf.training.distribution import Devices
from simclr_tf.training.gradients import (
    LossGradients,
    MicroBatches,
    Rows,
    StepGradients,
    rows_of_views,
)


class TrainStep:
    """Runs training steps: photometry, losses, gradients, update.

    The gradients of all replicas are summed, so the loss is divided by their number once.

    Args:
        model: The network, built.
        method: The losses.
        optimizer: The optimizer, built on the trainable variables.
        weight_decay: The L2 term of the loss.
        views: The augmentation whose device half runs here; None if batches hold images.
        devices: The devices of the run.
        jit_compile: Compile losses and gradients with XLA.
        small_views: The augmentation of small crops, if batches hold any.
        microbatch: Images that the network sees at a time, if not the whole batch of a replica;
            for methods of pretraining.
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
        microbatch: int = 0,
    ) -> None:
        self._model, self._method, self._optimizer = model, method, optimizer
        self._views, self._small_views, self._devices = views, small_views, devices
        self._extension = extension_of(method)
        self._trainable = [*model.trainable_variables, *self._extension.trainable_variables]
        self._loss_gradients = LossGradients(self._trainable, weight_decay, devices.num_replicas)
        self._names: list[str] = []
        # XLA wants static shapes, which the photometry has not, and no update across replicas.
        self._whole_batch = (
            tf.function(self._compute, jit_compile=True) if jit_compile else self._compute
        )
        self._micro_batches = None
        if microbatch:
            assert isinstance(method, Pretraining)
            self._micro_batches = MicroBatches(
                method, self._loss_gradients, microbatch, jit_compile
            )

    def _compute(self, images: tf.Tensor, labels: tf.Tensor, *small: tf.Tensor) -> StepGradients:
        return self._loss_gradients(lambda: self._method(images, labels, *small))[0]

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
        return self._update(self.gradients(images, labels, *small))

    def gradients(self, images: tf.Tensor, labels: tf.Tensor, *small: tf.Tensor) -> StepGradients:
        """Computes what `replica_step` updates the network with; arguments as there."""
        if self._micro_batches is None:
            return self._whole_batch(images, labels, *small)
        part = partial(rows_of_views, (images, *small), axis=0)
        return self._micro_batches.gradients(part, labels)

    def _update(self, found: StepGradients) -> dict[str, tf.Tensor]:
        gradients, metrics, carried = found
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
        if self._micro_batches is None:
            images, *small = self._finished(batch)
            return self.replica_step(images, batch["label"], *small)
        found = self._micro_batches.gradients(partial(self._finished, batch), batch["label"])
        return self._update(found)

    def _finished(self, batch: Batch, rows: Rows | None = None) -> tuple[tf.Tensor, ...]:
        """The finished views, and small crops if there are any; of some rows or of all."""
        configs = {"": self._views, "small_": self._small_views}
        known = {prefix: config for prefix, config in configs.items() if config is not None}
        views = tuple(batch[f"{prefix}views"] for prefix in known)
        draws = tuple(batch[f"{prefix}draws"] for prefix in known)
        if rows is not None:
            views, draws = (rows_of_views(x, rows, axis=1) for x in (views, draws))
        return tuple(map(_by_view, views, draws, known.values()))

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


def _by_view(views: tf.Tensor, draws: tf.Tensor, config: ViewConfig) -> tf.Tensor:
    """The finished views [V, b, S, S, C] of host views [b, V, S, S, C]."""
    return tf.transpose(device_views(views, draws, config), [1, 0, 2, 3, 4])
