"""The network's outputs over a whole split, from all replicas and workers."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from data_prep.augment.photometry import to_float
from data_prep.augment.views import ViewConfig, evaluation_crops, evaluation_image
from data_prep.sources.source import Source
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.training.batches import Batch, MakeImage, evaluation_batches
from simclr_tf.training.distribution import Devices
from simclr_tf.training.health import check_outputs


@dataclass(frozen=True)
class Outputs:
    """Outputs for n images, in the order of the source.

    Attributes:
        index: Number of each image in its source, int64 [n].
        label: Class number, -1 = none, int64 [n].
        features: Pooled features of the backbone, float32 [n, D]; of several crops their mean.
        logits: Of the supervised head, float32 [n, classes], likewise; None without one.
    """

    index: np.ndarray
    label: np.ndarray
    features: np.ndarray
    logits: np.ndarray | None


Forward = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def simclr_outputs(model: SimCLRModel) -> Forward:
    """Gives `features` and, with a supervised head, `logits` of images [b, S, S, C] in [0, 1]."""

    def forward(images: tf.Tensor) -> dict[str, tf.Tensor]:
        endpoints = model(images, training=False)
        wanted = {"features": endpoints["final_avg_pool"]}
        if "logits_sup" in endpoints:
            wanted["logits"] = endpoints["logits_sup"]
        return wanted

    return forward


class Evaluator:
    """Runs a network in inference mode; its graph is traced once and serves every pass.

    Args:
        model: The network; or what gives `features` and `logits` of images.
        views: Size and central crop; or what makes the network's input of a decoded image.
        devices: What it runs on.
        batch_size: Images of a global batch.
        seed: The run's seed, which labels drawn at random depend on.
        crops: 1 = the central crop; more: that many along each side, see `evaluation_crops`.
    """

    def __init__(
        self,
        model: SimCLRModel | Forward,
        views: ViewConfig | MakeImage,
        devices: Devices,
        batch_size: int,
        seed: int = 0,
        crops: int = 1,
    ) -> None:
        self._forward = simclr_outputs(model) if isinstance(model, keras.Model) else model
        self._views, self._crops = views, crops
        self._devices, self._batch_size, self._seed = devices, batch_size, seed

    def _network(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._forward(to_float(images))

    def _mean_of_crops(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Crop after crop, so that a batch takes no more memory than one of single crops."""
        first = self._network(images[:, 0])
        rest = tf.range(1, self._crops**2)
        total = tf.foldl(
            lambda sums, i: {n: sums[n] + v for n, v in self._network(images[:, i]).items()},
            rest,
            first,
            parallel_iterations=1,
        )
        return {name: value / self._crops**2 for name, value in total.items()}

    def _replica_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        outputs = self._network if self._crops == 1 else self._mean_of_crops
        known = {"index": batch["index"], "label": batch["label"]}
        return {**known, **outputs(batch["image"])}

    def _view(self, image: tf.Tensor, views: ViewConfig | MakeImage) -> tf.Tensor:
        if not isinstance(views, ViewConfig):
            return views(image)
        if self._crops == 1:
            return evaluation_image(image, views)
        return evaluation_crops(image, views, self._crops)

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

        Raises:
            DivergedError: Some of them are NaN or infinite.
        """
        dataset, steps = evaluation_batches(
            source,
            self._views,
            self._devices,
            self._batch_size,
            self._seed,
            max_steps,
            self._view,
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
        for name in ("features", "logits"):
            if name in arrays:
                check_outputs(name, arrays[name])
        return Outputs(arrays["index"], arrays["label"], arrays["features"], arrays.get("logits"))
