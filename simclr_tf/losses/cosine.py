"""The loss of methods without negatives: predict the other view's projection."""

import tensorflow as tf

from simclr_tf.losses.replicas import full_precision


def negative_cosine(predictions: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Minus the mean cosine between predictions and targets; scalar in [-1, 1].

    Chen and He 2021, "Exploring Simple Siamese Representation Learning", equation 1. BYOL's loss
    (Grill et al. 2020, equation 2), the squared distance of both at unit length, is 2 plus twice
    this.

    Args:
        predictions: [b, d]; half precision is computed in float32.
        targets: [b, d]; no gradient reaches them.
    """
    predictions = tf.math.l2_normalize(full_precision(predictions), 1)
    targets = tf.math.l2_normalize(tf.cast(targets, predictions.dtype), 1)
    return -tf.reduce_mean(tf.reduce_sum(predictions * tf.stop_gradient(targets), 1))


def projection_spread(projections: tf.Tensor) -> tf.Tensor:
    """Spread of projections over images: 0 = all alike (collapse), 1 = even in all directions.

    The standard deviation of each dimension at unit length, averaged, times the root of the number
    of dimensions (SimSiam, section 4.1).

    Args:
        projections: [b, d].
    """
    unit = tf.math.l2_normalize(full_precision(projections), 1)
    dim = tf.cast(tf.shape(unit)[1], unit.dtype)
    return tf.reduce_mean(tf.math.reduce_std(unit, 0)) * tf.sqrt(dim)
