"""Trains a tiny network by any method on views made on the spot."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf.checkpoints.store import CheckpointStore, model_keys
from simclr_tf.config.run_config import RunConfig
from simclr_tf.methods.base import Extension, extension_of
from simclr_tf.training.build import build_seeded, build_step
from simclr_tf.training.distribution import Devices
from tests.images import CLASSES, picture
from tests.replicas import mirrored, per_replica

SIZE, CHANNELS, BATCH = 16, 1, 8

TINY: dict[str, Any] = {
    "image_size": SIZE,
    "resnet_depth": 18,
    "width_multiplier": 0.0625,
    "stem": "cifar",
    "proj_out_dim": 16,
    "num_proj_layers": 2,
    "train_batch_size": BATCH,
    "train_steps": 8,
    "optimizer": "momentum",
    "learning_rate": 1.0,
    "warmup_epochs": 0.0,
    "precision": "float32",
    "queue_size": 24,
    "prototypes": 12,
    "small_crops": 2,
    "small_crop_size": 8,
    "frozen_prototype_steps": 0,
    "assignment_queue": 24,
    "assignment_queue_epochs": 0.0,
}


def views(step: int, batch: int = BATCH, size: int = SIZE, number: int = 2) -> np.ndarray:
    """Noisy views [V, b, S, S, 1] of a batch of pictures, in [0, 1]."""
    rng = np.random.default_rng(step)
    kinds = [CLASSES[i % len(CLASSES)] for i in range(batch)]
    images = np.stack([picture(kind, size, rng, CHANNELS) for kind in kinds]) / 255
    noisy = images + rng.normal(0, 0.05, (number, *images.shape))
    return np.clip(noisy, 0, 1).astype(np.float32)


class Trainer:
    """A network, a method and a step, without files.

    Args:
        method: Its name.
        replicas: On how many logical CPUs.
        **values: Other settings than `TINY`.
    """

    def __init__(self, method: str, replicas: int = 1, **values: Any) -> None:
        self.config = RunConfig.from_values({**TINY, "method": method, **values})
        strategy = tf.distribute.OneDeviceStrategy("CPU:0") if replicas == 1 else mirrored(replicas)
        self.devices = Devices(strategy, 0, 1, "CPU")
        self.model, self.parts = build_seeded(
            self.config, self.devices, CHANNELS, 3, num_examples=32
        )
        self.step = build_step(self.config, self.devices, self.model, self.parts, CHANNELS)
        self._run = tf.function(self._reduced)

    @property
    def extension(self) -> Extension:
        return extension_of(self.parts.method)

    def store(self, folder: Path) -> CheckpointStore:
        keys = {**model_keys(self.model), **self.extension.checkpoint_variables()}
        return CheckpointStore(folder, self.model, self.parts.optimizer, keys=keys)

    def _reduced(self, *inputs: Any) -> dict[str, tf.Tensor]:
        strategy = self.devices.strategy
        outputs = strategy.run(self.step.replica_step, inputs)
        return {n: strategy.reduce("MEAN", v, axis=None) for n, v in outputs.items()}

    def inputs(self, step: int) -> list[np.ndarray]:
        """Views, labels and, for SwAV, small crops."""
        batch = self.config.train.train_batch_size
        found = [views(step, batch), np.arange(batch, dtype=np.int64) % 3]
        if self.config.method.method == "swav" and self.config.method.small_crops:
            found.append(
                views(step, batch, self.config.small_crop_size, self.config.method.small_crops)
            )
        return found

    def take(self, inputs: list[np.ndarray]) -> dict[str, float]:
        """One step on a global batch."""
        strategy = self.devices.strategy
        replicas = strategy.num_replicas_in_sync
        parts = [np.split(x, replicas, axis=min(1, x.ndim - 1)) for x in inputs]
        shared = [per_replica(strategy, [tf.constant(p) for p in part]) for part in parts]
        return {name: float(value) for name, value in self._run(*shared).items()}

    def train(self, first: int, steps: int, every: int = 10**9) -> list[dict[str, float]]:
        """Steps on batches `first`, `first + 1`, ..., which repeat after `every`."""
        return [self.take(self.inputs(i % every)) for i in range(first, first + steps)]

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features [n, d] of images [n, S, S, 1] in inference mode."""
        return self.model.encoder(tf.constant(images), training=False).numpy()
