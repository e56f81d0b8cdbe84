"""Statistics of an image set's pixels and classes, and a training schedule for its size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from data_prep.sources.source import Source

PERCENTILES = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9)
_BLOCK = 2**20  # values looked at together
_LEVELS = 2**16


class PixelStatistics:
    """Mean, spread, range and percentiles of every channel, image by image.

    Values count in [0, 1]: 8-bit pixels are divided by 255. Mean and variance are merged in float64
    block by block (Chan, Golub and LeVeque 1979), which keeps all digits however many pixels there
    are. Percentiles come from a histogram of 65,536 levels: exact for 8 and 16 bits, else to within
    1 / 65,535.
    """

    def __init__(self, channels: int):
        """Starts with nothing seen.

        Args:
            channels: Channels of every image.
        """
        self.count = 0
        self._mean = np.zeros(channels)
        self._squares = np.zeros(channels)
        self._min = np.full(channels, np.inf)
        self._max = np.full(channels, -np.inf)
        self._histogram = np.zeros((channels, _LEVELS), np.int64)

    def add(self, pixels: np.ndarray) -> None:
        """Takes one image in.

        Args:
            pixels: [H, W, C], uint8 or float32 in [0, 1].
        """
        channels = pixels.shape[-1]
        values = pixels.reshape(-1, channels)
        rows = max(1, _BLOCK // channels)
        for start in range(0, len(values), rows):
            self._add_block(values[start : start + rows])

    def _add_block(self, values: np.ndarray) -> None:
        eight_bits = values.dtype == np.uint8
        (self._add_counts if eight_bits else self._add_values)(values)

    def _add_counts(self, values: np.ndarray) -> None:
        """8 bits: everything from how often each of the 256 values occurs."""
        columns = values.T
        counts = np.stack([np.bincount(column, minlength=256) for column in columns])
        shades = np.arange(256) / 255.0
        mean = counts @ shades / len(values)
        squares = (counts * (shades - mean[:, np.newaxis]) ** 2).sum(axis=1)
        present = counts > 0
        low = shades[present.argmax(axis=1)]
        high = shades[255 - present[:, ::-1].argmax(axis=1)]
        self._histogram[:, :: (_LEVELS - 1) // 255] += counts
        self._merge(len(values), mean, squares, low, high)

    def _add_values(self, values: np.ndarray) -> None:
        values = values.astype(np.float64)
        mean = values.mean(axis=0)
        squares = ((values - mean) ** 2).sum(axis=0)
        levels = np.rint(values * (_LEVELS - 1)).clip(0, _LEVELS - 1).astype(np.int64)
        self._histogram += [np.bincount(column, minlength=_LEVELS) for column in levels.T]
        self._merge(len(values), mean, squares, values.min(axis=0), values.max(axis=0))

    def _merge(
        self, number: int, mean: np.ndarray, squares: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> None:
        total, gap = self.count + number, mean - self._mean
        self._squares += squares + gap**2 * (self.count * number / total)
        self._mean += gap * (number / total)
        self.count = total
        self._min = np.minimum(self._min, low)
        self._max = np.maximum(self._max, high)

    @property
    def channels_alike(self) -> bool:
        """True if there are several channels and all have the same statistics."""
        same = all(np.array_equal(row, self._histogram[0]) for row in self._histogram[1:])
        return len(self._histogram) > 1 and same

    @property
    def mean(self) -> np.ndarray:
        """Mean of every channel, float64 [C]."""
        return self._mean.copy()

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of every channel over all pixels, float64 [C]."""
        return np.sqrt(self._squares / max(1, self.count))

    @property
    def min(self) -> np.ndarray:
        """Least value of every channel, float64 [C]."""
        return self._min.copy()

    @property
    def max(self) -> np.ndarray:
        """Greatest value of every channel, float64 [C]."""
        return self._max.copy()

    def percentile(self, percent: float) -> np.ndarray:
        """The value that this share of the pixels does not exceed, float64 [C].

        Args:
            percent: From 0 to 100. Of an even choice the lower value, as NumPy's method
                `inverted_cdf`.
        """
        rank = max(1, int(np.ceil(percent / 100 * self.count)))
        below = self._histogram.cumsum(axis=1)
        levels = [int(np.searchsorted(counts, rank)) for counts in below]
        return np.array(levels) / (_LEVELS - 1)


@dataclass(frozen=True)
class SetStatistics:
    """Statistics of a set of images, from one pass over it.

    Attributes:
        pixels: Statistics of the pixels.
        sizes: Smallest and largest height and width: (H, H, W, W).
        class_counts: Images of every class, by name; classes without images too.
        unlabeled: Images without a label.
    """

    pixels: PixelStatistics
    sizes: tuple[int, int, int, int]
    class_counts: dict[str, int]
    unlabeled: int

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(self.class_counts.values()) + self.unlabeled


def measure(
    source: Source, progress: Callable[[int, int], None] = lambda done, total: None
) -> SetStatistics:
    """Decodes every image of a source once.

    Args:
        source: The images.
        progress: Called with (images done, images in all).

    Raises:
        UserError: An image cannot be decoded.
    """
    import tensorflow as tf

    from data_prep.sources.source import PARALLEL_CALLS, Element

    def decoded(element: Element) -> tuple[tf.Tensor, tf.Tensor]:
        return element["label"], source.decode(element)

    elements = source.elements(seed=0, shuffle=False, start=0, batch_size=1)
    images = elements.map(
        tf.autograph.experimental.do_not_convert(decoded),
        num_parallel_calls=PARALLEL_CALLS,
        deterministic=True,
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    pixels = PixelStatistics(source.channels)
    labels, heights, widths = [], [], []
    try:
        for label, image in images.prefetch(PARALLEL_CALLS).with_options(options):
            pixels.add(image.numpy())
            labels.append(int(label))
            heights.append(image.shape[0])
            widths.append(image.shape[1])
            progress(len(labels), source.num_examples)
    except tf.errors.OpError as error:
        raise source.diagnose() or error from None
    counts = {name: labels.count(number) for number, name in enumerate(source.class_names)}
    sizes = min(heights), max(heights), min(widths), max(widths)
    return SetStatistics(pixels, sizes, counts, labels.count(-1))


def class_weights(counts: Mapping[str, int]) -> dict[str, float]:
    """Weights that let every class count the same: images / (classes * images of the class).

    As scikit-learn's `compute_class_weight("balanced", ...)`. Classes without images have none.

    Args:
        counts: Images of every class.
    """
    present = {name: number for name, number in counts.items() if number}
    total = sum(present.values())
    return {name: total / (len(present) * number) for name, number in present.items()}


@dataclass(frozen=True)
class Schedule:
    """A batch size and a number of epochs.

    Attributes:
        batch_size: Images of a batch.
        epochs: Times that every image is seen.
        updates: Steps of the optimiser in all of them.
    """

    batch_size: int
    epochs: int
    updates: int


@dataclass(frozen=True)
class _Rule:
    least_batch: int
    most_batch: int
    least_epochs: int
    most_epochs: int
    updates: int


# Pretraining: 12,827 drill-core photographs, batch 256, 100 epochs, are 5,011 updates, after which
# self-supervision beat supervised transfer; SimCLR trains CIFAR-10 for 1,000 epochs. A contrastive
# batch of fewer than 32 images has too few negatives.
_PRETRAIN = _Rule(32, 512, 100, 1000, updates=5000)
# A head or a network that is fine-tuned: there batch 64 and 25 epochs.
_FINETUNE = _Rule(8, 64, 25, 200, updates=1000)
_UPDATES_PER_EPOCH = 16

FEW_UPDATES = 200
"""With fewer steps than this a network learns next to nothing."""


def suggest_pretraining(images: int) -> Schedule:
    """Suggests a batch size and epochs to start from, for pretraining on a number of images.

    A network learns by updates, not by epochs: the batch is the largest power of two that leaves 16
    updates an epoch, from 32 to 512; the epochs are as many as make 5,000 updates, from 100 to
    1,000.

    Args:
        images: Training images, at least 1.
    """
    return _suggest(images, _PRETRAIN)


def suggest_finetuning(images: int) -> Schedule:
    """Suggests a batch size and epochs for fine-tuning on a number of labelled images.

    As `suggest_pretraining`, with a batch from 8 to 64 and 25 to 200 epochs for 1,000 updates.
    """
    return _suggest(images, _FINETUNE)


def _suggest(images: int, rule: _Rule) -> Schedule:
    wanted = min(max(images // _UPDATES_PER_EPOCH, rule.least_batch), rule.most_batch, images)
    batch = 1 << (wanted.bit_length() - 1)
    epochs = -(-rule.updates * batch // images)
    epochs = min(max(epochs, rule.least_epochs), rule.most_epochs)
    # SimCLR's count of steps.
    return Schedule(batch, epochs, images * epochs // batch + 1)
