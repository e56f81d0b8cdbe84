"""Errors of depth maps in units of depth, over whole sets and splits, with intervals.

Only a few numbers are kept of each image, so a set may be of any size: the errors of a set follow
from them exactly, as all its maps have the same number of pixels. They are compared with two
baselines that need no image: the best single depth for every pixel, and the best single map for
all images.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import tensorflow as tf

from data_prep.augment.color import to_float
from data_prep.manifest.manifest import Record
from data_prep.sources.manifest_source import ManifestSource
from finetune.depth.pairs import DepthSet, case_of
from finetune.depth.trained import in_units
from simclr_tf.evaluation.intervals import RESAMPLES, Interval, draw_counts, percentile_interval
from simclr_tf.training.distribution import Devices
from simclr_tf.training.evaluator import Evaluator

SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5


@dataclass(frozen=True)
class ImageErrors:
    """Errors and mean depths of every image, float64 [n] each.

    Attributes:
        squared: mean squared error, in squared units.
        absolute: mean absolute error, in units.
        similarity: SSIM; nan for maps smaller than its window.
        mean_predicted: mean predicted depth.
        mean_true: mean true depth.
        mean_square: mean of the squared true depth.
    """

    squared: np.ndarray
    absolute: np.ndarray
    similarity: np.ndarray
    mean_predicted: np.ndarray
    mean_true: np.ndarray
    mean_square: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.squared)

    @property
    def rmse(self) -> np.ndarray:
        """Root mean squared error of every image, float64 [n]."""
        return np.sqrt(self.squared)

    def take(self, rows: np.ndarray) -> "ImageErrors":
        """The images at the given positions, int [m], or for which a mask, bool [n], is true."""
        return ImageErrors(*(values[rows] for values in _arrays(self)))


def image_errors(
    predicted: np.ndarray, true: np.ndarray, depth_min: float, depth_max: float
) -> ImageErrors:
    """The errors of some depth maps.

    Args:
        predicted: float [n, H, W], in units of depth.
        true: float [n, H, W].
        depth_min: least depth that is known to occur.
        depth_max: greatest one; the two are the range that SSIM is relative to.

    Raises:
        ValueError: Arrays of different shapes, or an empty range.
    """
    if predicted.shape != true.shape or predicted.ndim != 3:
        raise ValueError(f"maps of shape {predicted.shape} and {true.shape}, not [n, H, W] twice")
    error = predicted.astype(np.float64) - true
    truth = true.astype(np.float64)
    pixels = (1, 2)
    return ImageErrors(
        squared=(error**2).mean(axis=pixels),
        absolute=np.abs(error).mean(axis=pixels),
        similarity=structural_similarity(predicted, true, depth_min, depth_max),
        mean_predicted=predicted.mean(axis=pixels, dtype=np.float64),
        mean_true=truth.mean(axis=pixels),
        mean_square=(truth**2).mean(axis=pixels),
    )


def join_errors(parts: Iterable[ImageErrors]) -> ImageErrors:
    """The errors of several batches, one after the other."""
    columns = zip(*map(_arrays, parts), strict=True)
    return ImageErrors(*map(np.concatenate, columns))


def structural_similarity(
    predicted: np.ndarray, true: np.ndarray, depth_min: float, depth_max: float
) -> np.ndarray:
    """SSIM of every image (Wang et al. 2004, IEEE Trans. Image Process. 13, 600, section III.B).

    Its window is a Gaussian of sigma 1.5 over 11 x 11 pixels, inside the image; K1 = 0.01, K2 =
    0.03. Depths count from `depth_min`, and the data range is `depth_max - depth_min`.

    Args:
        predicted: float [n, H, W].
        true: float [n, H, W].
        depth_min: in units of depth.
        depth_max: in units of depth.

    Returns:
        float64 [n] in [-1, 1]; nan for maps smaller than the window.
    """
    import tensorflow as tf

    span = depth_max - depth_min
    if not span > 0:
        raise ValueError(f"the range of depths is empty: {depth_min} to {depth_max}")
    if min(true.shape[1:]) < SSIM_WINDOW or not len(true):
        return np.full(len(true), np.nan)
    first, second = (((maps - depth_min) / span)[..., np.newaxis] for maps in (predicted, true))
    values = tf.image.ssim(
        tf.constant(first, tf.float32), tf.constant(second, tf.float32), 1.0,
        filter_size=SSIM_WINDOW, filter_sigma=_SSIM_SIGMA,
    )  # fmt: skip
    return values.numpy().astype(np.float64)


class MapSums:
    """Finds the error of the best single map that is given for every image; maps come in batches.

    That map is the mean of all true maps.
    """

    def __init__(self) -> None:
        self._images, self._sum, self._squares = 0, np.zeros(()), 0.0

    def add(self, true: np.ndarray) -> None:
        """Counts some true maps, float [n, H, W]."""
        maps = true.astype(np.float64)
        self._images += len(maps)
        self._sum = self._sum + maps.sum(axis=0)
        self._squares += float((maps**2).sum())

    @property
    def rmse(self) -> float:
        """Root mean squared error of the mean map over all images so far."""
        squares = self._squares / (self._images * self._sum.size)
        return float(np.sqrt(max(0.0, squares - ((self._sum / self._images) ** 2).mean())))


@dataclass(frozen=True)
class DepthErrors:
    """The errors of a set of images, in units of depth.

    Attributes:
        images: how many.
        units: of them independent of each other, by which the intervals are drawn.
        rmse: root of the mean squared error over all pixels of all images.
        mae: mean absolute error over all pixels.
        bias: mean of predicted less true depth.
        ssim: mean over the images; nan where no image is large enough.
        constant_rmse: error of the one depth that is best for all pixels of the set, their mean.
        map_rmse: error of the one map that is best for all images of the set.
        skill: 1 - `rmse` / `constant_rmse`: 0 is no better than that depth, 1 without error.
    """

    images: int
    units: int
    rmse: Interval
    mae: Interval
    bias: Interval
    ssim: Interval
    constant_rmse: float
    map_rmse: float
    skill: Interval


def measure(
    errors: ImageErrors,
    map_rmse: float,
    *,
    units: Sequence[str] | np.ndarray,
    cases: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> DepthErrors:
    """The errors of a set, with percentile bootstrap intervals over its images or groups.

    Args:
        errors: Of its images.
        map_rmse: From `MapSums`.
        units: [n], a name for each image, the same for images of a group.
        cases: int [n]; if given, units are drawn within their case.
        resamples: Bootstrap samples; 0 = values alone.
        level: Of confidence.
        seed: Of the resampling.
    """
    found = sample_intervals(
        lambda counts: _of_samples(errors, counts),
        len(errors),
        groups=np.asarray(units),
        labels=cases,
        resamples=resamples,
        level=level,
        seed=seed,
    )
    return DepthErrors(
        images=len(errors),
        units=len(set(units)),
        constant_rmse=float(_constant_rmse(errors, np.ones((1, len(errors))))[0]),
        map_rmse=map_rmse,
        **found,
    )


def sample_intervals(
    of_samples: Callable[[np.ndarray], dict[str, np.ndarray]],
    n: int,
    *,
    groups: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals of several numbers over the same samples.

    Args:
        of_samples: Computes the numbers by name, float64 [b] each, of b samples. Counts [b, n] say
            how often each sample holds each of the n things.
        n: How many things are resampled.
        groups: See `draw_counts`.
        labels: See `draw_counts`.
        resamples: Samples; 0 = values alone.
        level: Of confidence.
        seed: Of the samples.
    """
    values = of_samples(np.ones((1, n)))
    draws = draw_counts(n, resamples, seed, groups=groups, labels=labels)
    parts = [of_samples(counts) for counts in draws]
    joined = {
        name: np.concatenate([np.zeros(0), *(part[name] for part in parts)]) for name in values
    }
    return {
        name: percentile_interval(float(value[0]), joined[name], level)
        for name, value in values.items()
    }


def _of_samples(errors: ImageErrors, counts: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers, [b] each, of samples given as counts [b, n] of the images in them."""
    rmse = np.sqrt(_mean(errors.squared, counts))
    constant = _constant_rmse(errors, counts)
    nothing = np.full(len(counts), np.nan)
    ratio = np.divide(rmse, constant, out=nothing, where=constant > 0)
    return {
        "rmse": rmse,
        "mae": _mean(errors.absolute, counts),
        "bias": _mean(errors.mean_predicted - errors.mean_true, counts),
        "ssim": _mean(errors.similarity, counts),
        "skill": 1 - ratio,
    }


def _constant_rmse(errors: ImageErrors, counts: np.ndarray) -> np.ndarray:
    mean = _mean(errors.mean_true, counts)
    return np.sqrt(np.maximum(_mean(errors.mean_square, counts) - mean**2, 0))


def _mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means weighted by counts [b, n]; sums, as matrix products depend on the threads."""
    return (counts * values).sum(axis=1) / counts.sum(axis=1)


def _arrays(errors: ImageErrors) -> tuple[np.ndarray, ...]:
    return tuple(getattr(errors, field.name) for field in fields(errors))


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
        devices: The devices that it runs on.
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
        """The network's output for every image, float32 [n, H, W]; all workers must call it."""
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
        """`rmse` and `mae` with the weights as they are; all workers must call it."""
        maps = in_units(self._maker.maps(self._source), self._limits)
        sums, start = ErrorSums(), 0
        for records in parts_of(self._images.records):
            sums.add(maps[start : start + len(records)], self._images.targets(records)[..., 0])
            start += len(records)
        return sums.errors()
