"""The network's outputs over a whole split, or for images of any kind one by one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import keras
import numpy as np
import tensorflow as tf

from data_prep.augment.color import to_float
from data_prep.augment.views import ViewConfig, evaluation_crops, evaluation_image
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import image_facts
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.source import PARALLEL_CALLS, Source
from simclr_tf.checkpoints.preprocessing import Preprocessing
from simclr_tf.config.sections import MachineSettings
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.training import distribution
from simclr_tf.training.batches import Batch, Batches, MakeImage, evaluation_batches
from simclr_tf.training.distribution import Devices
from simclr_tf.training.health import check_outputs

_KEPT_PASSES = 4  # the splits of a run


@dataclass(frozen=True)
class ImageOutputs:
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
    """Runs a network in inference mode; network and pipelines are traced once for all passes.

    Args:
        model: The network; or what gives `features` and `logits` of images.
        views: Size and central crop; or what makes the network's input of a decoded image.
        devices: The devices that it runs on.
        batch_size: Images of a global batch.
        seed: The run's seed, which labels drawn at random depend on.
        crops: 1 = the central crop; more: that many along each side, see `evaluation_crops`.
        fixed_size: Whether every batch is padded to `batch_size`, so that the last bits of an
            image's outputs do not depend on how many images there are.
    """

    def __init__(
        self,
        model: SimCLRModel | Forward,
        views: ViewConfig | MakeImage,
        devices: Devices,
        batch_size: int,
        seed: int = 0,
        crops: int = 1,
        fixed_size: bool = False,
    ) -> None:
        self._fixed_size = fixed_size
        self._forward = simclr_outputs(model) if isinstance(model, keras.Model) else model
        self._views, self._crops = views, crops
        self._devices, self._batch_size, self._seed = devices, batch_size, seed
        # Tracing a pipeline takes longer than a pass over a hundred images.
        self._pass = lru_cache(_KEPT_PASSES)(self._new_pass)

    def _new_pass(self, source: Source, max_steps: int) -> tuple[Batches, int]:
        return evaluation_batches(
            source,
            self._views,
            self._devices,
            self._batch_size,
            self._seed,
            max_steps,
            self._view,
            self._fixed_size,
        )

    def _network(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._forward(to_float(images))

    def _mean_of_crops(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Outputs averaged over crops, one crop at a time, to take no more memory than one does."""
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

    def batches(self, source: Source, max_steps: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """The outputs for every image of a source, a batch at a time and as they come.

        Args:
            source: The images.
            max_steps: Batches at most; 0 = all.

        Yields:
            `index` [b], -1 for what fills a batch up, `label` [b] and what the network gives.
        """
        dataset, steps = self._pass(source, max_steps)
        iterator = iter(dataset)
        for _ in range(steps):
            yield {name: value.numpy() for name, value in self._step(next(iterator)).items()}

    def outputs(self, source: Source, max_steps: int = 0) -> ImageOutputs:
        """The outputs for every image of a source; see `batches`.

        Raises:
            DivergedError: Some of them are NaN or infinite.
        """
        parts = list(self.batches(source, max_steps))
        joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        order = np.argsort(joined["index"], kind="stable")
        order = order[joined["index"][order] >= 0]
        arrays = {name: value[order] for name, value in joined.items()}
        for name in ("features", "logits"):
            if name in arrays:
                check_outputs(name, arrays[name])
        return ImageOutputs(
            arrays["index"], arrays["label"], arrays["features"], arrays.get("logits")
        )


class Featurizer:
    """Runs a trained network over images, prepared as in its training, on one device.

    Outputs do not depend on how images are dealt out into calls: images of 8 bits are resized in 8
    bits and others in floating point, so each kind is taken for itself. Labels are not looked at.

    Attributes:
        devices: The one device.

    Args:
        forward: Gives `features` and perhaps `logits` of images.
        preprocessing: Of the network.
        batch_size: Images of a pass; fewer are padded.
        crops: Of an image along each side; see `Evaluator`.
    """

    def __init__(
        self, forward: Forward, preprocessing: Preprocessing, batch_size: int, crops: int = 1
    ) -> None:
        self.devices = distribution.connect(MachineSettings(distribute="one_device"))
        views = preprocessing.views
        self._evaluator = Evaluator(
            forward, views, self.devices, batch_size, crops=crops, fixed_size=True
        )
        self._channels, self._batch_size = views.channels, batch_size

    def outputs(self, images: Manifest) -> ImageOutputs:
        """Outputs for n images, in their order; labels are -1.

        Raises:
            UserError: A header cannot be read.
            tf.errors.OpError: An image cannot be decoded.
        """
        source = self._source(images)
        eight = None
        if source.image_dtype != tf.uint8:
            eight = image_facts(images).survey.bits == 8
        if eight is None or not eight.any():
            return self._evaluator.outputs(source)
        rows = [np.flatnonzero(eight), np.flatnonzero(~eight)]
        parts = [
            self._evaluator.outputs(self._source(images.subset(images.records[r] for r in part)))
            for part in rows
        ]
        back = np.argsort(np.concatenate(rows))
        logits = [part.logits for part in parts if part.logits is not None]
        return ImageOutputs(
            np.arange(len(images)),
            np.concatenate([part.label for part in parts])[back],
            np.concatenate([part.features for part in parts])[back],
            np.concatenate(logits)[back] if logits else None,
        )

    def undecodable(self, images: Manifest) -> dict[int, str]:
        """Positions of images that cannot be decoded, and why."""
        source = self._source(images)
        elements = source.elements(seed=0, shuffle=False, start=0, batch_size=self._batch_size)

        def index(element: Batch) -> tuple[tf.Tensor, tf.Tensor]:
            # A pixel goes along, or the decoding would be optimised away.
            return element["index"], source.decode(element)[0, 0, 0]

        pairs = elements.map(index, num_parallel_calls=PARALLEL_CALLS).ignore_errors()
        decoded = {int(position) for position, _ in pairs.as_numpy_iterator()}
        bad = sorted(set(range(len(images))).difference(decoded))
        return {i: _why(self._source(images.subset([images.records[i]]))) for i in bad}

    def _source(self, images: Manifest) -> ManifestSource:
        bare = images.subset(replace(record, label="", split="") for record in images.records)
        return ManifestSource(bare, (), channels=self._channels, cache="false")


def _why(source: ManifestSource) -> str:
    """The reason that the one image of a source cannot be decoded, in short."""
    error = source.diagnose()
    text = str(error) if error else "cannot be decoded"
    return text.partition(" (")[2].partition("). Mend")[0] or text
