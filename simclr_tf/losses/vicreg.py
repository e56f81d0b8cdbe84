"""The loss of VICReg: variance, invariance, covariance."""

from typing import NamedTuple

import tensorflow as tf

from simclr_tf.losses.replicas import full_precision, gather_rows

_TARGET_STD = 1.0
_EPSILON = 1e-4


class VICReg(NamedTuple):
    """The three terms of both views, unweighted scalars.

    Attributes:
        invariance: mean squared difference of the two views' projections.
        variance: how far standard deviations fall short of 1, mean over dimensions; 2 (the sum
            over both views) in collapse.
        covariance: squared covariances of different dimensions, summed, over d.
    """

    invariance: tf.Tensor
    variance: tf.Tensor
    covariance: tf.Tensor


def vicreg_terms(a: tf.Tensor, b: tf.Tensor) -> VICReg:
    """The terms of VICReg (Bardes, Ponce, LeCun 2022, section 4.1 and algorithm 1).

    Inside `strategy.run` the statistics are those of the batch of all replicas.

    Args:
        a: projections of the first views [b, d]; half precision is computed in float32.
        b: projections of the second views [b, d].
    """
    rows, _ = gather_rows(tf.stack([full_precision(a), full_precision(b)]))
    shape = tf.shape(rows)
    count, dim = tf.cast(shape[1], rows.dtype), tf.cast(shape[2], rows.dtype)
    invariance = tf.reduce_mean(tf.math.squared_difference(rows[0], rows[1]))
    centerd = rows - tf.reduce_mean(rows, 1, keepdims=True)
    covariance = tf.matmul(centerd, centerd, transpose_a=True) / (count - 1)
    variances = tf.linalg.diag_part(covariance)
    short = tf.nn.relu(_TARGET_STD - tf.sqrt(variances + _EPSILON))
    off_diagonal = tf.reduce_sum(tf.square(covariance)) - tf.reduce_sum(tf.square(variances))
    return VICReg(invariance, tf.reduce_sum(tf.reduce_mean(short, 1)), off_diagonal / dim)
