"""Conversion of stored values to a network's input, inside the exported graph.

The NaN rule, the intensity rule and the change of channels are those of `read_image`
(`data_prep.reading.images`), in operations that ONNX has; they are computed in float64 where
`data_prep.reading.intensity` computes in float64.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.manifest.manifest import Record
from data_prep.manifest.read_options import Declaration
from data_prep.reading.images import read_image, read_stored, with_channels
from data_prep.reading.intensity import (
    SAMPLED_LEAST,
    SAMPLED_VALUES,
    Intensity,
    apply_intensity,
    fill_not_finite,
)
from data_prep.reading.spec import Reading
from data_prep.reading.tiles import parse_box
from data_prep.reading.training_files import TrainingFiles
from finetune.sections import Input
from finetune.trained import Trained

_LUMA = (0.299, 0.587, 0.114)
_SLACK = 1e-6  # of float images in [0, 1]


@dataclass(frozen=True)
class GivenImage:
    """An exported model's input.

    Attributes:
        takes: `image` = stored values; `float_image` and `prepared` = as `read_image` gives it.
        dtype: Of the values.
        channels: Of the image.
        reading: Rules for the values; the rest (page, axes, EXIF) is done before.
        wanted: Channels of the network.
        eight_bit: Images are of 8 bits, and the network sees them resized in 8 bits.
        declared: How files are read.
    """

    takes: Input
    dtype: tf.DType
    channels: int
    reading: Reading
    wanted: int
    eight_bit: bool
    declared: Declaration

    @property
    def prepared(self) -> bool:
        """True if images are cropped and resized outside the model."""
        return self.takes == "prepared"

    @property
    def in_words(self) -> str:
        """Describes the values to users of the exported model."""
        if self.takes != "image":
            return "float32 in [0, 1]"
        name, rule = str(self.dtype.name), self.reading.active_intensity
        if not rule:
            return name
        units = " in the units of the training files" if isinstance(rule.limits, tuple) else ""
        return f"{name}, as stored{units}; the intensity rule {rule} is inside"

    def as_read(self, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The image as `read_image` gives it.

        Args:
            image: [H, W, channels] of `dtype`.

        Returns:
            [H, W, wanted], uint8 or float32 in [0, 1]; and what is to be added to the outputs: NaN
            where `read_image` refuses the image.
        """
        fine = tf.constant(0, tf.float32)
        if self.takes != "image":
            fine = _poison(image, in_range=True)
            if self.eight_bit:
                image = tf.cast(tf.round(tf.clip_by_value(image, 0.0, 1.0) * 255.0), tf.uint8)
            return image, fine
        if image.dtype == tf.float32:
            image = _filled(image, self.reading.nan) if self.reading.nan else image
            fine = _poison(image, in_range=False)
        rule = self.reading.active_intensity
        if rule:
            image = _ruled(image, rule)
        elif image.dtype != tf.uint8:
            image = tf.cast(tf.cast(image, tf.float64) / image.dtype.max, tf.float32)
        return _channels(image, self.wanted), fine

    def outside(self, image: np.ndarray) -> np.ndarray:
        """The same as `as_read`, by the functions that `read_image` itself calls."""
        if self.takes != "image":
            eight = np.rint(image * 255).astype(np.uint8)
            return eight if self.eight_bit else image
        pixels = fill_not_finite(image, self.reading.nan)
        rule = self.reading.active_intensity
        if rule:
            pixels = apply_intensity(pixels, rule)
        elif pixels.dtype != np.uint8:
            pixels = (pixels / np.float64(np.iinfo(pixels.dtype).max)).astype(np.float32)
        return with_channels(pixels, self.wanted)

    def from_file(self, file: str, record: Record) -> np.ndarray:
        """The model's input from a file, prepared as its facts say: [H, W, channels]."""
        if self.takes == "image" and self.reading.active_intensity:
            stored = read_stored(file, record.reading)
            if record.tile:
                box = parse_box(record.tile)
                stored = stored[box.y : box.y + box.height, box.x : box.x + box.width]
            return with_channels(stored.astype(self.dtype.as_numpy_dtype), self.channels)
        read = read_image(file, self.channels, record.reading, record.tile)
        if self.takes == "image" and self.dtype == tf.uint16:
            return np.rint(read * 65535.0).astype(np.uint16)
        if self.takes != "image" and read.dtype == np.uint8:
            return read.astype(np.float32) / np.float32(255)
        return read

    def example(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """Noise, [height, width, channels]."""
        shape = (height, width, self.channels)
        if self.takes != "image":
            return (rng.integers(0, 256, shape) / np.float32(255)).astype(np.float32)
        if self.dtype == tf.float32:
            return rng.normal(300, 100, shape).astype(np.float32)
        return rng.integers(0, self.dtype.max + 1, shape).astype(self.dtype.as_numpy_dtype)


def input_of(trained: Trained, takes: Input) -> GivenImage:
    """The input that a network's training files ask for.

    Args:
        trained: The network.
        takes: Kind of input.

    Raises:
        UserError: Values of one image alone do not say what the network is to see.
    """
    preprocessing = trained.preprocessing
    declared = preprocessing.reading.declaration
    files = preprocessing.reading.files or TrainingFiles()
    reading, bits = declared.reading(), set(files.bits)
    rule, wanted = reading.active_intensity, preprocessing.channels
    eight = bits == {8} and not rule
    if takes != "image":
        return GivenImage(takes, tf.float32, wanted, Reading(), wanted, eight, declared)
    remedy = "give --input=float_image, and images as they are after reading"
    if declared.tile and reading.looks_at_whole_picture:
        raise UserError(
            "the network sees tiles, read by a rule that looks at the whole picture"
            f" ({rule or f'nan={reading.nan}'}), which a tile does not tell; {remedy}",
            setting="input",
            value="image",
        )
    if not rule:
        if bits not in (set(), {8}, {16}):
            raise UserError(
                f"the training files are of {' and '.join(map(str, sorted(bits)))}"
                f" bits, without an intensity rule; {remedy}",
                setting="input",
                value="image",
            )
        kind = tf.uint16 if bits == {16} else tf.uint8
        return GivenImage(takes, kind, wanted, Reading(), wanted, eight or not bits, declared)
    if not bits:
        raise UserError(
            f"the network is shown images after the intensity rule {rule}, and"
            f" nothing says of what depth its training files were; {remedy}",
            setting="input",
            value="image",
        )
    channels = files.channels
    given = channels[0] if len(channels) == 1 else wanted
    kind = tf.uint8 if bits == {8} else tf.uint16 if max(bits) <= 16 else tf.float32
    inside = Reading(nan=reading.nan, intensity=reading.intensity, percentiles=reading.percentiles)
    return GivenImage(takes, kind, given, inside, wanted, False, declared)


def _poison(image: tf.Tensor, *, in_range: bool) -> tf.Tensor:
    """NaN for an image that is refused, else 0, float32.

    Args:
        image: float32.
        in_range: Whether it must be in [0, 1]; else it must only be finite.
    """
    if in_range:
        good = tf.logical_and(image >= -_SLACK, image <= 1 + _SLACK)
    else:
        good = tf.equal(image - image, 0.0)
    bad = 1 - tf.reduce_min(tf.cast(good, tf.float32))
    return tf.where(bad > 0, tf.constant(np.nan, tf.float32), tf.constant(0, tf.float32))


def _filled(values: tf.Tensor, rule: str) -> tf.Tensor:
    """`fill_not_finite`."""
    # Only of a condition that is `IsNaN` itself, tf2onnx makes a choice of values; else it adds
    # products with 0 and 1, and 0 times NaN is NaN. Infinity less itself is NaN, too.
    bad = tf.math.is_nan(values - values)
    if rule == "zero":
        filling = tf.constant(0, values.dtype)
    elif rule == "min":
        highest = tf.constant(values.dtype.max, values.dtype)
        filling = tf.reduce_min(tf.where(bad, highest, values))
    else:
        number = tf.reduce_sum(1 - tf.cast(bad, tf.int32))
        last = tf.constant(values.dtype.max, values.dtype)
        ranked = _sorted(tf.reshape(tf.where(bad, last, values), [-1]))
        low, high = (number - 1) // 2, number // 2
        middle = tf.cast(tf.gather(ranked, [low, high]), tf.float64)
        filling = tf.cast(tf.reduce_mean(middle), values.dtype)
    return tf.where(bad, filling, values)


def _ruled(stored: tf.Tensor, rule: Intensity) -> tf.Tensor:
    """`apply_intensity`."""
    values = tf.cast(stored, tf.float64)
    if isinstance(rule.limits, tuple):
        low, high = (tf.constant(limit, tf.float64) for limit in rule.limits)
    else:
        low, high = _limits(stored, rule)
    contrast = high > low
    width = tf.where(contrast, high - low, tf.constant(1, tf.float64))
    share = tf.minimum(tf.maximum((values - low) / width, 0.0), 1.0)
    if rule.rule == "sqrt":
        share = tf.sqrt(share)
    elif rule.rule == "arcsinh":
        softening = rule.parameters[0]
        scaled = share / softening
        share = tf.math.log(scaled + tf.sqrt(scaled * scaled + 1.0)) / np.arcsinh(1 / softening)
    flat = tf.constant(0.5 if rule.rule == "zscore" else 0.0, tf.float64)
    return tf.cast(tf.where(contrast, share, flat), tf.float32)


def _limits(stored: tf.Tensor, rule: Intensity) -> tuple[tf.Tensor, tf.Tensor]:
    """`find_limits`, of one image."""
    flat = tf.reshape(tf.cast(stored, tf.float32), [-1])
    least = tf.cast(tf.reduce_min(flat), tf.float64)
    greatest = tf.cast(tf.reduce_max(flat), tf.float64)
    if rule.rule == "zscore":
        values = tf.cast(flat, tf.float64)
        mean = tf.reduce_mean(values)
        spread = rule.parameters[0] * tf.sqrt(tf.reduce_mean((values - mean) ** 2))
        differ = greatest > least
        return tf.where(differ, mean - spread, least), tf.where(differ, mean + spread, greatest)
    if rule.percentiles == (0.0, 100.0):
        return least, greatest
    counted = _sample(flat) if rule.sampled else flat
    low, high = rule.percentiles
    return _percentile(counted, low), _percentile(counted, high)


def _sample(flat: tf.Tensor) -> tf.Tensor:
    """The values that networks of version 0.1.0 take percentiles of: at even distances."""
    number = tf.size(flat)
    most = tf.maximum(SAMPLED_LEAST, SAMPLED_VALUES // number)  # as `find_limits` has it
    count = tf.minimum(number, most)
    last = tf.cast(number - 1, tf.float64)
    step = last / tf.cast(tf.maximum(count - 1, 1), tf.float64)
    ranks = tf.range(count)
    places = tf.cast(tf.floor(tf.cast(ranks, tf.float64) * step), tf.int32)
    places = tf.where(ranks < count - 1, places, number - 1)
    return tf.gather(flat, places)


def _sorted(flat: tf.Tensor) -> tf.Tensor:
    """Values [n], rising."""
    return -tf.math.top_k(-flat, k=tf.size(flat), sorted=True)[0]


def _percentile(flat: tf.Tensor, percent: float) -> tf.Tensor:
    """`np.percentile` of values [n], by linear interpolation; only the nearer end is sorted."""
    last = tf.size(flat) - 1
    place = tf.cast(last, tf.float64) * (percent / 100)
    below = tf.cast(tf.floor(place), tf.int32)
    above = tf.minimum(below + 1, last)
    if percent < 50:
        ranked = -tf.math.top_k(-flat, k=above + 1, sorted=True)[0]
        ends = tf.gather(ranked, tf.stack([below, above]))
    else:
        ranked = tf.math.top_k(flat, k=last - below + 1, sorted=True)[0]
        ends = tf.gather(ranked, tf.stack([last - below, last - above]))
    ends = tf.cast(ends, tf.float64)
    return ends[0] + (ends[1] - ends[0]) * (place - tf.floor(place))


def _channels(image: tf.Tensor, wanted: int) -> tf.Tensor:
    """`with_channels`."""
    present = image.shape[-1]
    if present == 1 and wanted == 3:
        return tf.tile(image, [1, 1, 3])
    if present == 3 and wanted == 1:
        weights: Any = tf.constant(_LUMA, tf.float64)
        gray = tf.reduce_sum(tf.cast(image, tf.float64) * weights, axis=-1, keepdims=True)
        return tf.cast(tf.round(gray) if image.dtype == tf.uint8 else gray, image.dtype)
    return image
