"""A queue of projections of earlier batches."""

import tensorflow as tf


def enqueue(queue: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Appends rows and drops as many of the oldest, which stand first.

    Args:
        queue: [..., K, d].
        rows: [..., n, d], n <= K.

    Returns:
        [..., K, d].
    """
    return tf.ensure_shape(tf.concat([queue, rows], -2)[..., -queue.shape[-2] :, :], queue.shape)
