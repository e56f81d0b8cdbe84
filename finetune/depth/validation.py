"""Errors of depth maps in physical units, over whole splits."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from data_prep.augment.photometry import to_float
from data_prep.manifest.manifest import Record
from data_prep.sources.manifest_source import ManifestSource
from finetune.depth.pairs import DepthSet, case_of
from finetune.depth.trained import in_units
from simclr_tf.training.distribution import Devices
from simclr_tf.training.evaluator import Evaluator

_ROWS = 4096  # images whose targets are in memory at a time


class ErrorSums:
    """Errors over all pixels of all images at once, added up part by part.

    The root mean squared error is the root of the mean over everything: neither a mean of batches'
    errors nor the root of a mean absolute error.
    """

    def __init__(self) -> None:
        self._squares = self._absolutes = 0.0
        self._number = 0

    def add(self, predicted: np.ndarray, true: np.ndarray) -> None:
        """Takes maps of any shape in, both in physical units."""
        difference = predicted.astype(np.float64) - true
        self._squares += float(np.square(difference).sum())
        self._absolutes += float(np.abs(difference).sum())
        self._number += difference.size

    def errors(self) -> dict[str, float]:
        """`rmse` and `mae` of what was added."""
        return {
            "rmse": (self._squares / self._number) ** 0.5,
            "mae": self._absolutes / self._number,
        }


def errors_by_case(
    images: DepthSet, predict: Callable[[Sequence[Record]], np.ndarray]
) -> dict[str, dict[str, float]]:
    """Errors of all images (key "") and of those of every case.

    Args:
        images: With targets.
        predict: Depth of some records, of a shape that goes with [n, H, W].
    """
    sums = {case: ErrorSums() for case in ("", *images.cases)}
    for records in parts_of(images.records):
        predicted, true = predict(records), images.targets(records)[..., 0]
        predicted = np.broadcast_to(predicted, true.shape)
        cases = np.array([case_of(record) for record in records])
        for case, own in sums.items():
            chosen = (cases == case) | (case == "")
            own.add(predicted[chosen], true[chosen])
    return {case: own.errors() for case, own in sums.items()}


def parts_of(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """The records, so many at a time that their maps fit in memory."""
    for start in range(0, len(records), _ROWS):
        yield records[start : start + _ROWS]


class MapMaker:
    """Runs a network over the images of a source, on all replicas and workers.

    Args:
        forward: Images [b, H, W, 1] in [0, 1] -> likewise.
        size: Height and width.
        devices: What it runs on.
        batch_size: Images of a pass.
    """

    def __init__(
        self,
        forward: Callable[[tf.Tensor], tf.Tensor],
        size: tuple[int, int],
        devices: Devices,
        batch_size: int,
    ) -> None:
        self._size = size

        def flat(images: tf.Tensor) -> dict[str, tf.Tensor]:
            maps = tf.cast(forward(images), tf.float32)
            return {"features": tf.reshape(maps, [-1, size[0] * size[1]])}

        def image(pixels: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(to_float(pixels), [*size, 1])

        self._evaluator = Evaluator(flat, image, devices, batch_size)

    def maps(self, source: ManifestSource) -> np.ndarray:
        """What the network makes of every image, float32 [n, H, W]; all workers must call it."""
        return self._evaluator.outputs(source).features.reshape(-1, *self._size)


class DepthValidation:
    """RMSE and MAE of a split in physical units.

    Args:
        images: With targets.
        source: The same images.
        maker: Of normalised depth.
        limits: Depths that the network calls 0 and 1.
    """

    def __init__(
        self,
        images: DepthSet,
        source: ManifestSource,
        maker: MapMaker,
        limits: tuple[float, float],
    ) -> None:
        self._images, self._source, self._maker, self._limits = images, source, maker, limits

    def __call__(self) -> dict[str, float]:
        """`rmse` and `mae` of now; all workers must call it."""
        maps = in_units(self._maker.maps(self._source), self._limits)
        sums, start = ErrorSums(), 0
        for records in parts_of(self._images.records):
            sums.add(maps[start : start + len(records)], self._images.targets(records)[..., 0])
            start += len(records)
        return sums.errors()
