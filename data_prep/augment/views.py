"""Views of images: geometry on the host, photometry on the device.

`host_views` runs in the input pipeline, image by image, and hands on whole pixels (uint8: a
quarter of the bytes) with a row of random numbers a view; `device_views` turns a batch of them
into the views a network sees. All randomness comes from `example_seed`, so that views depend on
(run seed, epoch, index) alone: not on batch size, order, or parallelism.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from data_prep.augment import geometry
from data_prep.augment.color import photometry
from data_prep.augment.config import ViewConfig, skipped_for_channels
from data_prep.augment.draws import Draw, GeometryDraws, draw, example_seed

__all__ = [
    "Draw",
    "ViewConfig",
    "device_views",
    "evaluation_crops",
    "evaluation_image",
    "example_seed",
    "host_views",
    "skipped_for_channels",
    "small_views",
]

SMALL_CROP_LEAST = 0.05  # share of the image's area (SwAV, appendix A)
SMALL_IMAGE = 32  # evaluation takes images up to this side whole


def host_views(
    image: tf.Tensor, seed: tf.Tensor, config: ViewConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Crops, resizes, flips and turns; draws the numbers of the photometry.

    Args:
        image: [H, W, C], uint8 or float32 in [0, 1], of any size.
        seed: int [2], from `example_seed`.
        config: The recipe.

    Returns:
        views [V, S, S, C] of the image's dtype (uint8: rounded and clipped; float32: with the
        overshoot of bicubic resizing) and draws [V, len(Draw)] float32 for `device_views`.

    Raises:
        ValueError: Another dtype, or another number of channels than the config's.
    """
    image = _checked(image, config)
    numbers, draws = draw(seed, config)
    rows = zip(*(tf.unstack(n) for n in numbers), strict=True)
    views = [_view(image, GeometryDraws(*row), config) for row in rows]
    return tf.stack(views), draws


def small_views(views: ViewConfig, size: int, number: int, largest_area: float) -> ViewConfig:
    """The small crops beside the views of an image (multi-crop; SwAV, section 3.2, appendix A).

    Args:
        views: The recipe of the views.
        size: Side of a small crop in pixels.
        number: How many.
        largest_area: Largest area of a small crop, as a share of the image's area.
    """
    least = min(views.crop_area[0], SMALL_CROP_LEAST)
    area = (least, largest_area)
    return dataclasses.replace(views, image_size=size, num_views=number, crop_area=area)


def device_views(views: tf.Tensor, draws: tf.Tensor, config: ViewConfig) -> tf.Tensor:
    """Colour jitter, grey, blur, solarizing.

    Deterministic, and row by row: a view's result depends on that view and its draws alone. Meant
    for the training step, which runs it on the GPU; on a CPU it may as well run in `Dataset.map`.

    Args:
        views: [B, V, S, S, C], uint8 or float32, from `host_views`.
        draws: [B, V, len(Draw)] float32, from `host_views`.
        config: The recipe.

    Returns:
        [B, V, S, S, C] float32 in [0, 1].
    """
    shape = tf.shape(views)
    side, channels = config.image_size, config.channels
    flat = tf.reshape(views, [-1, side, side, channels])
    flat = photometry(flat, tf.reshape(draws, [-1, len(Draw)]), config)
    return tf.ensure_shape(tf.reshape(flat, shape), views.shape)


def evaluation_image(image: tf.Tensor, config: ViewConfig) -> tf.Tensor:
    """The one view of an image for evaluation: the central 0.875, bicubic.

    Images are taken whole (their central square) for `image_size` up to 32, as in the reference.
    With `whole_image` it is all of the image, squeezed into the square.

    Args:
        image: [H, W, C], uint8 or float32 in [0, 1].
        config: Size, channels and central crop of the training views.

    Returns:
        [S, S, C] of the image's dtype, float32 clipped to [0, 1].
    """
    image = _for_evaluation(image, config)
    side = config.image_size
    if config.whole_image:
        return _within_range(geometry.crop_and_resize(image, geometry.whole(image), side, side))
    proportion = 1.0 if side <= SMALL_IMAGE else geometry.EVALUATION_CROP
    return _within_range(geometry.center_crop(image, side, side, proportion))


def evaluation_crops(image: tf.Tensor, config: ViewConfig, crops: int) -> tf.Tensor:
    """Several views of an image for evaluation: a grid of overlapping squares over all of it.

    Args:
        image: [H, W, C], uint8 or float32 in [0, 1].
        config: Size, channels and central crop of the training views.
        crops: Squares along each side, see `geometry.square_grid`.

    Returns:
        [crops * crops, S, S, C] of the image's dtype, row by row, float32 clipped to [0, 1].
    """
    image = _for_evaluation(image, config)
    side = config.image_size
    boxes = geometry.square_grid(image, crops)
    return _within_range(
        tf.stack([geometry.crop_and_resize(image, box, side, side) for box in boxes])
    )


def _for_evaluation(image: tf.Tensor, config: ViewConfig) -> tf.Tensor:
    image = _checked(image, config)
    if config.central_crop:
        box = geometry.central_box(image, 1.0, config.central_crop)
        image = tf.slice(image, [box.top, box.left, 0], [box.height, box.width, -1])
        image = tf.ensure_shape(image, [None, None, config.channels])
    return image


def _within_range(views: tf.Tensor) -> tf.Tensor:
    return views if views.dtype == tf.uint8 else tf.clip_by_value(views, 0.0, 1.0)


def _checked(image: tf.Tensor, config: ViewConfig) -> tf.Tensor:
    image = tf.convert_to_tensor(image)
    if image.dtype not in (tf.uint8, tf.float32):
        raise ValueError(f"images must be uint8 or float32, not {image.dtype.name}")
    return tf.ensure_shape(image, [None, None, config.channels])


def _view(image: tf.Tensor, numbers: GeometryDraws, config: ViewConfig) -> tf.Tensor:
    size = config.image_size
    box = _box(image, numbers.crop_seed, config)
    if config.rotation_degrees:
        angle = (2 * numbers.turns[1] - 1) * math.radians(config.rotation_degrees)
        view = geometry.rotate_and_resize(image, box, angle, size)
    else:
        view = geometry.crop_and_resize(image, box, size, size)
    if config.horizontal_flip or config.vertical_flip:
        view = geometry.flip(view, numbers.flips)
    if config.right_angle_rotation:
        view = geometry.quarter_turns(view, tf.cast(numbers.turns[0] * 4, tf.int32))
    return view


def _box(image: tf.Tensor, seed: tf.Tensor, config: ViewConfig) -> geometry.CropBox:
    central = config.central_crop or not config.random_crop
    if central and not config.whole_image:
        box = geometry.central_box(image, 1.0, config.central_crop or 1.0)
    else:
        box = geometry.whole(image)
    if config.random_crop:
        box = geometry.random_box(seed, box, config.crop_area, config.crop_aspect)
    return box
