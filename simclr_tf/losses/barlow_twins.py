"""The loss of Barlow Twins: make the cross-correlation of two views the identity."""

from typing import NamedTuple

import tensorflow as tf

from simclr_tf.losses.replicas import full_precision, gather_rows

_EPSILON = 1e-5  # of the batch normalisation in the authors' code


class BarlowTwins(NamedTuple):
    """The loss and its parts, scalars.

    Attributes:
        loss: on_diagonal + off_diagonal_weight x off_diagonal.
        on_diagonal: sum of (1 - C_ii)^2; d if the views have nothing in common, 0 if all.
        off_diagonal: sum of C_ij^2 over i != j.
    """

    loss: tf.Tensor
    on_diagonal: tf.Tensor
    off_diagonal: tf.Tensor


def barlow_twins_loss(a: tf.Tensor, b: tf.Tensor, off_diagonal_weight: float) -> BarlowTwins:
    """The loss of Barlow Twins (Zbontar et al. 2021, equations 1 and 2).

    Inside `strategy.run` the correlation is that of the batch of all replicas.

    Args:
        a: projections of the first views [b, d]; half precision is computed in float32.
        b: projections of the second views [b, d].
        off_diagonal_weight: the paper's lambda.
    """
    rows, _ = gather_rows(tf.stack([full_precision(a), full_precision(b)]))
    mean, variance = tf.nn.moments(rows, 1, keepdims=True)
    unit = (rows - mean) * tf.math.rsqrt(variance + _EPSILON)
    count = tf.cast(tf.shape(rows)[1], rows.dtype)
    correlation = tf.matmul(unit[0], unit[1], transpose_a=True) / count
    diagonal = tf.linalg.diag_part(correlation)
    on = tf.reduce_sum(tf.square(1 - diagonal))
    off = tf.reduce_sum(tf.square(correlation)) - tf.reduce_sum(tf.square(diagonal))
    return BarlowTwins(on + off_diagonal_weight * off, on, off)
