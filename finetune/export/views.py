"""The view of an image for evaluation, in operations that ONNX has.

TensorFlow's bicubic resizing takes its weights from a table of 1,024 steps, ONNX's operator
computes them; rounded to 8 bits that is a level here and there. This one has TensorFlow's table.
"""

import numpy as np
import tensorflow as tf

from data_prep.augment import geometry
from data_prep.augment.views import SMALL_IMAGE, ViewConfig

_STEPS = 1024
_A = -0.5  # of Keys' cubic


def _table() -> np.ndarray:
    """Weights of a pixel at distance i / 1024, and of the one beyond, float32 [1025, 2]."""
    x = np.arange(_STEPS + 1) / _STEPS
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    y = x + 1
    far = ((_A * y - 5 * _A) * y + 8 * _A) * y - 4 * _A
    return np.stack([near, far], axis=1).astype(np.float32)


def bicubic(image: tf.Tensor, size: int) -> tf.Tensor:
    """What `tf.image.resize(image, [size, size], "bicubic")` gives.

    Args:
        image: float32 [H, W, C].
        size: Side of the result.

    Returns:
        float32 [size, size, C].
    """
    rows, row_weights = _weights(tf.shape(image)[0], size)
    columns, column_weights = _weights(tf.shape(image)[1], size)
    # Four neighbours of every row [size, 4, W, C], then of every column [size, size, 4, C].
    tall = tf.gather(image, rows, axis=0) * row_weights[:, :, tf.newaxis, tf.newaxis]
    wide = tf.gather(tf.reduce_sum(tall, axis=1), columns, axis=1)
    return tf.reduce_sum(wide * column_weights[tf.newaxis, :, :, tf.newaxis], axis=2)


def _weights(length: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Positions int32 [size, 4] of neighbours along an axis, and their weights."""
    table = tf.constant(_table())
    step = tf.cast(length, tf.float32) / float(size)
    place = (tf.range(size, dtype=tf.float32) + 0.5) * step - 0.5
    first = tf.floor(place)
    nearest = tf.cast(tf.round((place - first) * _STEPS), tf.int32)
    left, right = tf.gather(table, nearest), tf.gather(table, _STEPS - nearest)
    weights = tf.stack([left[:, 1], left[:, 0], right[:, 0], right[:, 1]], axis=1)
    positions = tf.cast(first, tf.int32)[:, tf.newaxis] + tf.range(-1, 3)
    # Neighbours beyond the edge do not count.
    inside = tf.logical_and(positions >= 0, positions < length)
    weights = weights * tf.cast(inside, tf.float32)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    return tf.clip_by_value(positions, 0, length - 1), weights


def evaluation_view(image: tf.Tensor, views: ViewConfig) -> tf.Tensor:
    """What `evaluation_image` gives, [S, S, C] of the image's type."""
    side = views.image_size
    if views.central_crop:
        image = _cropped(image, views.central_crop)
    if views.whole_image:
        crop = image
    else:
        crop = _cropped(image, 1.0 if side <= SMALL_IMAGE else geometry.EVALUATION_CROP)
    pixels = bicubic(tf.cast(crop, tf.float32), side)
    pixels = tf.ensure_shape(pixels, [side, side, views.channels])
    if image.dtype == tf.uint8:
        return tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 255.0)), tf.uint8)
    return tf.clip_by_value(pixels, 0.0, 1.0)


def _cropped(image: tf.Tensor, proportion: float) -> tf.Tensor:
    box = geometry.central_box(image, 1.0, proportion)
    return tf.slice(image, [box.top, box.left, 0], [box.height, box.width, -1])
