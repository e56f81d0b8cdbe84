"""The network's outputs over a whole split, from all replicas and workers."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from data_prep.augment.photometry import to_float
from data_prep.augment.views import ViewConfig
from data_prep.source import Source
from simclr_tf.distribution import Devices
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.training.inputs import Batch, evaluation_batches


@dataclass(frozen=True)
class Outputs:
    """Outputs for n images, in the order of the source.

    Attributes:
        index: Number of each image in its source, int64 [n].
        label: Class number, -1 = none, int64 [n].
        features: Pooled features of the backbone, float32 [n, D].
        logits: Of the supervised head, float32 [n, classes]; None without one.
    """

    index: np.ndarray
    label: np.ndarray
    features: np.ndarray
    logits: np.ndarray | None


class Evaluator:
    """Runs the network in inference mode; its graph is traced once and serves every pass.

    Args:
        model: The network.
        views: Size and central crop.
        devices: What it runs on.
        batch_size: Images of a global batch.
        seed: The run's seed, which labels drawn at random depend on.
    """

    def __init__(
        self,
        model: SimCLRModel,
        views: ViewConfig,
        devices: Devices,
        batch_size: int,
        seed: int = 0,
    ) -> None:
        self._model, self._views = model, views
        self._devices, self._batch_size, self._seed = devices, batch_size, seed

    def _replica_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        endpoints = self._model(to_float(batch["image"]), training=False)
        wanted = {
            "index": batch["index"],
            "label": batch["label"],
            "features": endpoints["final_avg_pool"],
        }
        if "logits_sup" in endpoints:
            wanted["logits"] = endpoints["logits_sup"]
        return wanted

    @tf.function(reduce_retracing=True)
    def _step(self, batch: Batch) -> dict[str, tf.Tensor]:
        strategy = self._devices.strategy
        per_replica = strategy.run(self._replica_step, (batch,))
        return {name: strategy.gather(value, axis=0) for name, value in per_replica.items()}

    def outputs(self, source: Source, max_steps: int = 0) -> Outputs:
        """The outputs for every image of a source.

        Args:
            source: The images.
            max_steps: Batches at most; 0 = all.
        """
        dataset, steps = evaluation_batches(
            source, self._views, self._devices, self._batch_size, self._seed, max_steps
        )
        iterator = iter(dataset)
        parts = [
            {name: value.numpy() for name, value in self._step(next(iterator)).items()}
            for _ in range(steps)
        ]
        joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        order = np.argsort(joined["index"], kind="stable")
        order = order[joined["index"][order] >= 0]
        arrays = {name: value[order] for name, value in joined.items()}
        return Outputs(arrays["index"], arrays["label"], arrays["features"], arrays.get("logits"))
