"""Affine resampling with the conventions of Keras' ImageDataGenerator: SciPy's edges, bilinear.

nearest     a a a | a b c d | d d d
reflect     c b a | a b c d | d c b
wrap        as SciPy's: the period is one pixel shorter than the image
constant    cval, wherever a pixel comes from beyond the centres of the outermost pixels
"""

from __future__ import annotations

import math

import tensorflow as tf

from data_prep.augment.image_data_generator_config import FillMode

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
    centre = (size - 1) / 2
    offset = centre + shift - tf.reduce_sum(linear * centre, axis=1)
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
    """Where every output pixel comes from: float32 [H, W, 2], (x, y)."""
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
