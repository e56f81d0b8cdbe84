"""The floors of a comparison: what a classifier reaches that no network stands behind.

Always saying the most frequent class, and a linear probe on 16 x 16 raw pixels. A network that is
not above them has found nothing in the images that their coarsest colours do not tell.
"""

import numpy as np
import tensorflow as tf

from data_prep.augment.geometry import central_box
from data_prep.augment.photometry import to_float
from data_prep.source import Source
from simclr_tf.distribution import Devices
from simclr_tf.training.evaluator import Evaluator

SIDE = 16
_AT_ONCE = 64


def raw_pixels(source: Source, devices: Devices, central_crop: float = 0.0) -> np.ndarray:
    """The pixels of every image, squeezed to 16 x 16 by means over areas.

    Args:
        source: The images.
        devices: What computes them.
        central_crop: Central share of an image that is kept before anything else; 0 = all.

    Returns:
        Features float32 [n, 16 * 16 * C], in the order of the source.
    """

    def shrink(image: tf.Tensor) -> tf.Tensor:
        if central_crop:
            box = central_box(image, 1.0, central_crop)
            image = tf.slice(image, [box.top, box.left, 0], [box.height, box.width, -1])
        small = tf.image.resize(to_float(image), [SIDE, SIDE], method="area")
        return tf.ensure_shape(small, [SIDE, SIDE, source.channels])

    def flat(images: tf.Tensor) -> dict[str, tf.Tensor]:
        width = SIDE * SIDE * source.channels
        return {"features": tf.reshape(images, [tf.shape(images)[0], width])}

    return Evaluator(flat, shrink, devices, _AT_ONCE).outputs(source).features


def majority(labels: np.ndarray, num_classes: int, images: int) -> np.ndarray:
    """What is said by somebody who knows how frequent classes are, and looks at no image.

    Args:
        labels: Class numbers of what is learnt from, int [n].
        num_classes: Of the comparison.
        images: That are scored.

    Returns:
        Probabilities float64 [images, num_classes], the same for every image; a class that was not
        seen is rare, not impossible.
    """
    counts = np.bincount(labels, minlength=num_classes) + 1.0
    shares: np.ndarray = np.tile(counts / counts.sum(), (images, 1))
    return shares
