"""Random numbers of the views: stateless, so that image `index` of an epoch always gets the same.

All of them are drawn on the host. What the photometry needs travels beside each view as a row of
`len(Draw)` floats, so that the photometry itself is a deterministic function on any device.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data_prep.augment.config import ViewConfig, shares

BLUR_SIGMA = (0.1, 2.0)
_EPOCH_BITS = 40  # images an epoch may hold: 2 ** 40
_SOLARIZE_BIT = 62  # beyond those of epoch and image


class Draw(IntEnum):
    """Columns of `draws`, one row a view, float32."""

    BRIGHTNESS = 0  # factor (simclrv2) or delta (simclrv1)
    CONTRAST = 1  # factor
    SATURATION = 2  # factor
    HUE = 3  # shift in turns
    SIGMA = 4  # of the blur, in pixels of the view
    JITTER = 5  # 1: this view's colours are jittered
    GRAY = 6  # 1: this view is turned grey
    BLUR = 7  # 1: this view is blurred
    SOLARIZE = 8  # 1: this view is solarized
    SLOT_0 = 9  # the jitter applied first: 0 brightness, 1 contrast, 2 saturation, 3 hue
    SLOT_1 = 10
    SLOT_2 = 11
    SLOT_3 = 12


class GeometryDraws(NamedTuple):
    """Random numbers of the geometry, one row for each view.

    Attributes:
        crop_seed: int64 [V, 2].
        flips: bool [V, 2], vertical and horizontal.
        turns: float32 [V, 2] in [0, 1): share of a full turn in quarters, share of the angle.
    """

    crop_seed: tf.Tensor
    flips: tf.Tensor
    turns: tf.Tensor


def example_seed(
    run_seed: int | tf.Tensor, epoch: int | tf.Tensor, index: int | tf.Tensor
) -> tf.Tensor:
    """Seed of one example's views in one epoch, int64 [2].

    Different (run_seed, epoch, index) give different seeds for up to 2^40 images and 2^22 epochs;
    TensorFlow's stateless generators scramble them.
    """
    position = tf.cast(epoch, tf.int64) * (1 << _EPOCH_BITS) + tf.cast(index, tf.int64)
    return tf.stack([tf.cast(run_seed, tf.int64), position])


def draw(seed: tf.Tensor, config: ViewConfig) -> tuple[GeometryDraws, tf.Tensor]:
    """All random numbers of one image's views.

    Every number has its own place in the stream, so switching one operation on or off leaves the
    numbers of the others as they are.

    Args:
        seed: int64 [2], from `example_seed`.
        config: The recipe.

    Returns:
        The numbers of the geometry, and `draws` [V, len(Draw)] float32 for the photometry.
    """
    crop_seed = tf.random.stateless_uniform([config.num_views, 2], seed, None, None, tf.int64)
    # Another key, as floats are made of the same bits as the integers above.
    u = tf.random.stateless_uniform([config.num_views, 16], seed ^ tf.constant([0, -1], tf.int64))
    low, high = _ranges(config)
    factors = low + u[:, :5] * (high - low)
    happens = tf.cast(
        tf.concat([u[:, 5:8], _solarize_numbers(seed, config)], axis=1) < _probabilities(config),
        tf.float32,
    )
    order = tf.cast(tf.argsort(u[:, 8:12]), tf.float32)
    flips = u[:, 12:14] < [0.5 * config.vertical_flip, 0.5 * config.horizontal_flip]
    return (
        GeometryDraws(crop_seed, flips, u[:, 14:]),
        tf.concat([factors, happens, order], axis=1),
    )


def _ranges(config: ViewConfig) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest values of the first five columns, float32."""
    spread, hue = 0.8 * config.color_jitter_strength, 0.2 * config.color_jitter_strength
    brightness = (max(1 - spread, 0.0), 1 + spread)
    if config.jitter_impl == "simclrv1":
        brightness = (-spread, spread)
    factor = (1 - spread, 1 + spread)
    spread *= config.saturation_share
    pairs = [brightness, factor, (1 - spread, 1 + spread), (-hue, hue), BLUR_SIGMA]
    low, high = np.array(pairs, np.float32).T
    return low, high


def _probabilities(config: ViewConfig) -> np.ndarray:
    """Probabilities of jitter, grey, blur and solarizing, float32 [V, 4]."""

    def by_view(probability: float | tuple[float, ...]) -> np.ndarray:
        return np.resize(shares(probability), config.num_views)

    return np.stack(
        [
            by_view(config.color_jitter_probability if config.jitter else 0.0),
            by_view(config.gray),
            by_view(config.blur_probability if config.blur_kernel_size else 0.0),
            by_view(config.solarize_probability),
        ],
        axis=1,
    ).astype(np.float32)


def _solarize_numbers(seed: tf.Tensor, config: ViewConfig) -> tf.Tensor:
    """Uniform numbers [V, 1] under a key of their own, which leaves all others as they are."""
    if not config.solarize:
        return tf.ones([config.num_views, 1])
    own = seed ^ tf.constant([0, 1 << _SOLARIZE_BIT], tf.int64)
    return tf.random.stateless_uniform([config.num_views, 1], own)


def small_crop_seed(seed: tf.Tensor) -> tf.Tensor:
    """Seed of the small crops beside the views of `seed`.

    Seeds of runs are never negative, so no other example has this seed.
    """
    return seed ^ tf.constant([-1, 0], tf.int64)
