"""The augmentation of transfer learning: Keras' ImageDataGenerator, stateless and seeded.

`ImageDataGenerator` draws from NumPy's global state, one image at a time, in Python. Here its
arguments, under its names, become a function of (run seed, epoch, index) inside tf.data: two
epochs differ, the same epoch repeats, whatever the parallelism.

Two things are not as in Keras 3.15. There `height_shift_range` moves images sideways (by a share
of their height), and `width_shift_range` up and down; here each does what its name says. And there
images that are not square turn about a point beside their centre; here about the centre. The
pictures are the same for square images and shifts that are swapped.

nearest     a a a | a b c d | d d d
reflect     c b a | a b c d | d c b
wrap        as SciPy's: the period is one pixel shorter than the image
constant    cval, wherever a pixel comes from beyond the centres of the outermost pixels
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from data_prep.augment.draws import example_seed
from data_prep.augment.image_data_generator_config import (
    FillMode,
    Shift,
    SupervisedConfig,
    shift_candidates,
)
from data_prep.sources.source import PARALLEL_CALLS, Element, Source

_SLACK = 1e-3  # pixels; so that a turn by 90 degrees does not lose its edge to rounding


def linear_map(
    theta: tf.Tensor | float, shear: tf.Tensor | float, zx: tf.Tensor | float, zy: tf.Tensor | float
) -> tf.Tensor:
    """Rotation, then shear, then zoom, from output to input offsets (x, y).

    Args:
        theta: Degrees, scalar.
        shear: Degrees, scalar.
        zx: Input pixels for each output pixel along x: above 1 the picture shrinks.
        zy: The same along y.

    Returns:
        float32 [2, 2].
    """
    theta, shear = (tf.cast(angle, tf.float32) * (math.pi / 180) for angle in (theta, shear))
    zx, zy = tf.cast(zx, tf.float32), tf.cast(zy, tf.float32)
    cos, sin = tf.cos(theta), tf.sin(theta)
    rotation = tf.stack([[cos, -sin], [sin, cos]])
    zero = tf.zeros([])
    sheared = tf.stack([[zx, -tf.sin(shear) * zy], [zero, tf.cos(shear) * zy]])
    # Matrix products on accelerators may round to few bits; this is a handful of numbers.
    return tf.reduce_sum(rotation[:, :, None] * sheared[None], axis=1)


def warp(
    image: tf.Tensor, linear: tf.Tensor, shift: tf.Tensor, fill_mode: FillMode, cval: float = 0.0
) -> tf.Tensor:
    """Takes every output pixel from `centre + linear @ (position - centre) + shift` of the image.

    Args:
        image: [H, W, C] float32.
        linear: float32 [2, 2], from `linear_map`.
        shift: float32 [2], (x, y) in input pixels.
        fill_mode: What lies beyond the image.
        cval: The value for "constant".

    Returns:
        [H, W, C] float32, bilinear.
    """
    shape = tf.shape(image)
    size = tf.cast(tf.stack([shape[1], shape[0]]), tf.float32)
    center = (size - 1) / 2
    offset = center + shift - tf.reduce_sum(linear * center, axis=1)
    if fill_mode == "wrap":
        pixels = _sample(image, _wrapped(_positions(shape, linear, offset), size - 1))
    else:
        transform = tf.concat([linear, offset[:, None]], axis=1)
        pixels = tf.raw_ops.ImageProjectiveTransformV3(
            images=image[None],
            transforms=tf.concat([tf.reshape(transform, [1, 6]), tf.zeros([1, 2])], axis=1),
            output_shape=shape[:2],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="REFLECT" if fill_mode == "reflect" else "NEAREST",
        )[0]
    if fill_mode == "constant":
        positions = _positions(shape, linear, offset)
        inside = (positions >= -_SLACK) & (positions <= size - 1 + _SLACK)
        pixels = tf.where(tf.reduce_all(inside, axis=-1, keepdims=True), pixels, cval)
    return tf.ensure_shape(pixels, image.shape)


def _positions(shape: tf.Tensor, linear: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Computes the source position of every output pixel: float32 [H, W, 2], (x, y)."""
    x = tf.range(shape[1], dtype=tf.int32)
    y = tf.range(shape[0], dtype=tf.int32)
    x, y = tf.cast(x, tf.float32)[None, :, None], tf.cast(y, tf.float32)[:, None, None]
    return linear[:, 0] * x + linear[:, 1] * y + offset


def _wrapped(positions: tf.Tensor, period: tf.Tensor) -> tf.Tensor:
    """Positions inside the image; those inside already, the last pixel too, stay."""
    inside = (positions >= 0) & (positions <= period)
    return tf.where(inside, positions, tf.math.floormod(positions, tf.maximum(period, 1)))


def _sample(image: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Bilinear values at positions (x, y) inside the image."""
    shape = tf.shape(image)
    last = tf.stack([shape[1], shape[0]]) - 1
    low = tf.clip_by_value(tf.cast(tf.floor(positions), tf.int32), 0, last)
    high = tf.minimum(low + 1, last)
    share = positions - tf.cast(low, tf.float32)
    right, down = share[..., :1], share[..., 1:]

    def at(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.gather_nd(image, tf.stack([y, x], axis=-1))

    upper = at(low[..., 0], low[..., 1]) * (1 - right) + at(high[..., 0], low[..., 1]) * right
    lower = at(low[..., 0], high[..., 1]) * (1 - right) + at(high[..., 0], high[..., 1]) * right
    return upper * (1 - down) + lower * down


__all__ = [
    "FeatureStatistics",
    "SupervisedConfig",
    "TransformParameters",
    "draw_parameters",
    "feature_statistics",
    "standardize",
    "supervised_dataset",
    "supervised_image",
    "transform",
]

_EPSILON = 1e-6
_PREFETCH = 4  # batches

Number: TypeAlias = "tf.Tensor | float"


class TransformParameters(NamedTuple):
    """Parameters of one image's transformation: scalars, named as in Keras' `apply_transform`.

    An operation whose parameter is None is left out.

    Attributes:
        theta: Rotation in degrees.
        tx: Shift along x in pixels: the picture moves left for numbers above 0.
        ty: Shift along y in pixels: the picture moves up for numbers above 0.
        shear: Degrees.
        zx: Zoom along x: above 1 the picture shrinks.
        zy: Zoom along y.
        flip_horizontal: Mirror left to right.
        flip_vertical: Mirror top to bottom.
        channel_shift_intensity: Added to all channels, within the image's least and greatest value.
        brightness: Factor.
    """

    theta: Number | None = None
    tx: Number | None = None
    ty: Number | None = None
    shear: Number | None = None
    zx: Number | None = None
    zy: Number | None = None
    flip_horizontal: tf.Tensor | bool | None = None
    flip_vertical: tf.Tensor | bool | None = None
    channel_shift_intensity: Number | None = None
    brightness: Number | None = None


class FeatureStatistics(NamedTuple):
    """Mean and standard deviation of every channel over the training images, after `rescale`."""

    mean: np.ndarray
    std: np.ndarray


def draw_parameters(
    seed: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int, config: SupervisedConfig
) -> TransformParameters:
    """All random numbers of one image.

    Every number has its own place in the stream, so switching one operation on or off leaves the
    numbers of the others as they are.

    Args:
        seed: int64 [2], from `example_seed`.
        height: Of the image in pixels.
        width: Of the image in pixels.
        config: The ranges.
    """
    u = tf.unstack(tf.random.stateless_uniform([12], seed))

    def spread(number: tf.Tensor, low: float, high: float) -> tf.Tensor | None:
        return None if low == high == 0 else low + number * (high - low)

    low, high = config.zoom
    zooms = low != 1 or high != 1
    shift = config.channel_shift_range
    return TransformParameters(
        theta=spread(u[0], -config.rotation_range, config.rotation_range),
        tx=_shift(u[1], u[2], config.width_shift_range, width),
        ty=_shift(u[3], u[4], config.height_shift_range, height),
        shear=spread(u[5], -config.shear_range, config.shear_range),
        zx=low + u[6] * (high - low) if zooms else None,
        zy=low + u[7] * (high - low) if zooms else None,
        flip_horizontal=u[8] < 0.5 if config.horizontal_flip else None,
        flip_vertical=u[9] < 0.5 if config.vertical_flip else None,
        channel_shift_intensity=spread(u[10], -shift, shift),
        brightness=spread(u[11], *config.brightness_range) if config.brightness_range else None,
    )


def _shift(
    choice: tf.Tensor, sign: tf.Tensor, value: Shift, side: tf.Tensor | int
) -> tf.Tensor | None:
    """A shift in pixels, by Keras' three meanings of the argument."""
    if not value:
        return None
    candidates = shift_candidates(value)
    if candidates is None:
        greatest = float(value)  # type: ignore[arg-type]
        drawn = (2 * choice - 1) * greatest
    else:
        index = tf.cast(choice * len(candidates), tf.int32)
        drawn = tf.gather(tf.constant(candidates, tf.float32), index)
        drawn *= tf.where(sign < 0.5, -1.0, 1.0)
        greatest = max(candidates)
    return drawn * tf.cast(side, tf.float32) if greatest < 1 else drawn


def transform(
    image: tf.Tensor, parameters: TransformParameters, config: SupervisedConfig, levels: int = 255
) -> tf.Tensor:
    """Keras' `apply_transform`: moves, shifts channels, flips, changes the brightness.

    Args:
        image: [H, W, C] float32 in [0, 255].
        parameters: What to do.
        config: What lies beyond the image's edge.
        levels: 255: a change of brightness leaves whole levels, as in Keras; 0: it does not.

    Returns:
        [H, W, C] float32 in [0, 255] (or the range of the image and `cval`).
    """
    p = parameters
    moves = [p.theta, p.tx, p.ty, p.shear, p.zx, p.zy]
    if any(number is not None for number in moves):
        theta, tx, ty, shear, zx, zy = (
            default if number is None else number
            for number, default in zip(moves, (0.0, 0.0, 0.0, 0.0, 1.0, 1.0), strict=True)
        )
        # As in Keras, the shift comes first, so that the rotation turns it.
        turned = linear_map(theta, 0.0, 1.0, 1.0)
        shift = tf.stack([tf.cast(tx, tf.float32), tf.cast(ty, tf.float32)])
        shift = tf.reduce_sum(turned * shift, axis=1)
        image = warp(image, linear_map(theta, shear, zx, zy), shift, config.fill_mode, config.cval)
    if p.channel_shift_intensity is not None:
        low, high = tf.reduce_min(image), tf.reduce_max(image)
        image = tf.clip_by_value(image + p.channel_shift_intensity, low, high)
    flips = [p.flip_vertical, p.flip_horizontal]
    if any(flip is not None for flip in flips):
        axes = tf.where(tf.stack([False if flip is None else flip for flip in flips]))[:, 0]
        image = tf.ensure_shape(tf.reverse(image, axes), image.shape)
    if p.brightness is not None:
        image = tf.floor(image) * p.brightness if levels else image * p.brightness
        image = tf.clip_by_value(tf.floor(image) if levels else image, 0.0, 255.0)
    return image


def standardize(
    image: tf.Tensor, config: SupervisedConfig, statistics: FeatureStatistics | None = None
) -> tf.Tensor:
    """Keras' `standardize`: rescaling and normalisation, by the image's or the set's statistics.

    Args:
        image: [..., H, W, C] float32.
        config: The kinds of rescaling and normalisation.
        statistics: Of the training images; needed for `featurewise_center`.

    Raises:
        ValueError: The statistics are missing.
    """
    if config.rescale:
        image *= config.rescale
    axes = (-3, -2, -1)
    if config.samplewise_center:
        image -= tf.reduce_mean(image, axes, keepdims=True)
    if config.samplewise_std_normalization:
        image /= tf.math.reduce_std(image, axes, keepdims=True) + _EPSILON
    if config.featurewise_center:
        if statistics is None:
            raise ValueError("featurewise_center needs the statistics of the training images")
        image -= tf.constant(statistics.mean, tf.float32)
        if config.featurewise_std_normalization:
            image /= tf.constant(statistics.std, tf.float32) + _EPSILON
    return image


def feature_statistics(images: Iterable[np.ndarray], config: SupervisedConfig) -> FeatureStatistics:
    """Mean and deviation of every channel, in one pass; Keras' `fit` without its memory.

    Args:
        images: [H, W, C], in [0, 255], of any sizes.
        config: Its `rescale` applies first.
    """
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for image in images:
        values = np.asarray(image, np.float64).reshape(-1, image.shape[-1])
        own = values.mean(axis=0)
        # Chan, Golub and LeVeque 1979.
        total, gap = count + len(values), own - mean
        squares = squares + ((values - own) ** 2).sum(axis=0)
        squares = squares + gap**2 * count * len(values) / total
        mean = mean + gap * len(values) / total
        count = total
    if not count:
        raise ValueError("no images to take statistics of")
    scale = config.rescale or 1.0
    return FeatureStatistics(mean * scale, np.sqrt(squares / count) * abs(scale))


def supervised_image(
    image: tf.Tensor,
    seed: tf.Tensor,
    config: SupervisedConfig,
    statistics: FeatureStatistics | None = None,
) -> tf.Tensor:
    """One augmented, standardized image.

    Args:
        image: [H, W, C], uint8, or float32 in [0, 1]; the latter counts as 0 to 255 as well, but
            keeps its finer levels.
        seed: int64 [2], from `example_seed`.
        config: The augmentation.
        statistics: Of the training images, for `featurewise_center`.

    Returns:
        [H, W, C] float32, in [0, 255] before `rescale` and normalisation.
    """
    levels = 255 if image.dtype == tf.uint8 else 0
    pixels = tf.cast(image, tf.float32) * (1.0 if levels else 255.0)
    shape = tf.shape(pixels)
    parameters = draw_parameters(seed, shape[0], shape[1], config)
    return standardize(transform(pixels, parameters, config, levels), config, statistics)


def resized(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """An image of another size and the same type: bilinear, as `image_dataset_from_directory`."""
    pixels = tf.image.resize(tf.cast(image, tf.float32), [height, width])
    if image.dtype == tf.uint8:
        pixels = tf.cast(tf.round(pixels), tf.uint8)
    return tf.ensure_shape(pixels, [height, width, image.shape[-1]])


def supervised_dataset(
    source: Source,
    config: SupervisedConfig,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    seed: int,
    start: int = 0,
    shuffle: bool = True,
    statistics: FeatureStatistics | None = None,
) -> tf.data.Dataset:
    """Batches for training (shuffled, endless, augmented) or scoring (in order, one pass).

    A source keeps only decoded images in memory, never augmented ones.

    Args:
        source: The images.
        config: The augmentation; `config.for_scoring()` for validation and test.
        image_size: (height, width) that images are resized to first.
        batch_size: Images of a batch.
        seed: The run's seed.
        start: Images consumed so far, a multiple of `batch_size`: a run goes on from there.
        shuffle: Endless, each epoch in another order; else one pass in the order of the set.
        statistics: Of the training images, for `featurewise_center`.

    Returns:
        Dictionaries of `image` [b, H, W, C] float32, `label` [b] int64 (-1 = none), `index` [b]
        int64 and `epoch` [b] int64.
    """

    @tf.autograph.experimental.do_not_convert
    def example(element: Element) -> Element:
        image = resized(source.decode(element), *image_size)
        image_seed = example_seed(seed, element["epoch"], element["index"])
        image = supervised_image(image, image_seed, config, statistics)
        return {"image": image} | {name: element[name] for name in ("label", "index", "epoch")}

    elements = source.elements(seed=seed, shuffle=shuffle, start=start, batch_size=batch_size)
    mapped = elements.map(example, num_parallel_calls=PARALLEL_CALLS, deterministic=True)
    return mapped.batch(batch_size, drop_remainder=shuffle).prefetch(_PREFETCH)
