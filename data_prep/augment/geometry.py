"""The geometric operations, which choose the pixels of an image that make a view, on the host.

Images are [H, W, C], uint8 or float32. Resizing is bicubic with half-pixel centres and without
antialiasing, as in SimCLR's TensorFlow 2 code. A float32 result may overshoot its input's range;
a uint8 result is rounded and clipped, that is within half a level of the clipped float32 result.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from data_prep.augment.config import MIN_OBJECT_COVERED

EVALUATION_CROP = 0.875
GRID_SHARE = 0.6
CROP_ATTEMPTS = 100


class CropBox(NamedTuple):
    """Part of an image, in pixels, int32 scalars."""

    top: tf.Tensor
    left: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor


def crop_shape(
    height: tf.Tensor, width: tf.Tensor, aspect: float, proportion: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width, int32, of the largest box of `aspect` (width / height) times `proportion`.

    Rounds half to even, as the reference does.
    """
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    wide = aspect > width / height
    crop_height = tf.where(wide, proportion / aspect * width, proportion * height)
    crop_width = tf.where(wide, proportion * width, proportion * aspect * height)
    return tf.cast(tf.math.rint(crop_height), tf.int32), tf.cast(tf.math.rint(crop_width), tf.int32)


def central_box(image: tf.Tensor, aspect: float, proportion: float) -> CropBox:
    """The largest central box of `aspect`, shrunk to `proportion` of its sides; never empty."""
    height, width = _size(image)
    crop_height, crop_width = (
        tf.maximum(side, 1) for side in crop_shape(height, width, aspect, proportion)
    )
    return CropBox(
        (height - crop_height + 1) // 2, (width - crop_width + 1) // 2, crop_height, crop_width
    )


def whole(image: tf.Tensor) -> CropBox:
    """All of an image."""
    height, width = _size(image)
    return CropBox(tf.constant(0), tf.constant(0), height, width)


def random_box(
    seed: tf.Tensor,
    within: CropBox,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> CropBox:
    """A random box inside another: Inception's crop (Szegedy et al. 2015), as SimCLR takes it.

    Area and aspect are uniform in their ranges; boxes that do not fit are drawn again, at most
    100 times, and then the whole of `within` is taken. Boxes under a tenth of it are never taken.

    Args:
        seed: int [2].
        within: The box to crop from.
        area: Least and greatest area as a fraction of `within`.
        aspect: Least and greatest width / height.
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.stack([within.height, within.width, 1]),
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=MIN_OBJECT_COVERED,
        aspect_ratio_range=aspect,
        area_range=area,
        max_attempts=CROP_ATTEMPTS,
        use_image_if_no_bounding_boxes=True,
    )
    return CropBox(within.top + begin[0], within.left + begin[1], size[0], size[1])


def crop_and_resize(image: tf.Tensor, box: CropBox, height: int, width: int) -> tf.Tensor:
    """The pixels of `box`, resized; same dtype as `image`, [height, width, C]."""
    crop = tf.slice(image, [box.top, box.left, 0], [box.height, box.width, -1])
    # The kernel converts each pixel every time it reads it, so convert before.
    pixels = tf.image.resize(
        tf.cast(crop, tf.float32), [height, width], tf.image.ResizeMethod.BICUBIC
    )
    pixels = _as(pixels, image.dtype)
    return tf.ensure_shape(pixels, [height, width, image.shape[-1]])


def center_crop(image: tf.Tensor, height: int, width: int, proportion: float) -> tf.Tensor:
    """The central box with the target's aspect, at `proportion` of its sides, resized."""
    return crop_and_resize(image, central_box(image, width / height, proportion), height, width)


def square_grid(image: tf.Tensor, along: int) -> list[CropBox]:
    """`along` x `along` squares, row by row, spread evenly from edge to edge of the image.

    Their side is `GRID_SHARE` of the image's shorter one, so that three along each side cover
    images up to 1.8 times as long as wide.

    Args:
        image: [H, W, C].
        along: 2 or more.
    """
    height, width = _size(image)
    shorter = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.maximum(tf.cast(tf.math.rint(GRID_SHARE * shorter), tf.int32), 1)
    tops = [(height - side) * i // (along - 1) for i in range(along)]
    lefts = [(width - side) * i // (along - 1) for i in range(along)]
    return [CropBox(top, left, side, side) for top in tops for left in lefts]


def rotate_and_resize(image: tf.Tensor, box: CropBox, angle: tf.Tensor, size: int) -> tf.Tensor:
    """The pixels of `box` turned about its centre by `angle` radians, as [size, size, C].

    The view is turned counter-clockwise. Bilinear; one interpolation from the image itself, so
    that real pixels fill the corners wherever the image has them and mirrored ones beyond.
    """
    height, width = tf.cast(box.height, tf.float32), tf.cast(box.width, tf.float32)
    cos, sin = tf.cos(angle), tf.sin(angle)
    center_y = tf.cast(box.top, tf.float32) + height / 2
    center_x = tf.cast(box.left, tf.float32) + width / 2
    # Output pixel (x, y) -> scaled offset from the centre -> turned -> input pixel; pixel centres
    # lie at whole numbers here and at halves in the box.
    dx, dy, middle = width / size, height / size, (1 - size) / 2
    transform = [
        cos * dx,
        -sin * dy,
        center_x - 0.5 + middle * (cos * dx - sin * dy),
        sin * dx,
        cos * dy,
        center_y - 0.5 + middle * (sin * dx + cos * dy),
        0.0,
        0.0,
    ]
    pixels = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=tf.stack(transform)[None],
        output_shape=[size, size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )[0]
    return tf.ensure_shape(_as(pixels, image.dtype), [size, size, image.shape[-1]])


def flip(image: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
    """Mirrors the image along the axes (vertical, horizontal) where `flips`, bool [2], says so."""
    # Reversing along an empty list of axes costs nothing, unlike both sides of a tf.where.
    return tf.ensure_shape(tf.reverse(image, tf.where(flips)[:, 0]), image.shape)


def quarter_turns(image: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Turns a square image counter-clockwise by `count` x 90 degrees."""
    return tf.ensure_shape(tf.image.rot90(image, count), image.shape)


def _size(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.shape(image)
    return shape[0], shape[1]


def _as(pixels: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    if dtype == tf.uint8:
        return tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 255.0)), tf.uint8)
    return pixels
