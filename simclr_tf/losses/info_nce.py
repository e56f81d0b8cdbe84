"""InfoNCE against a queue of negatives, the loss of MoCo."""

import tensorflow as tf

from simclr_tf.losses.replicas import full_precision


def info_nce(
    queries: tf.Tensor, keys: tf.Tensor, queue: tf.Tensor, temperature: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cross entropy of finding a query's own key among it and the queue.

    He et al. 2020, "Momentum Contrast", equation 1. No gradient reaches keys or queue.

    Args:
        queries: projections [b, d]; half precision is computed in float32.
        keys: the other view's, from the momentum network [b, d].
        queue: keys of earlier batches [K, d], of unit length.
        temperature: divides the cosines; > 0.

    Returns:
        loss: scalar, mean over the queries; ln(K + 1) at chance.
        logits: [b, 1 + K], the own key's first.
    """
    queries = tf.math.l2_normalize(full_precision(queries), 1)
    keys = tf.stop_gradient(tf.math.l2_normalize(tf.cast(keys, queries.dtype), 1))
    positive = tf.reduce_sum(queries * keys, 1, keepdims=True)
    negative = tf.matmul(queries, tf.stop_gradient(queue), transpose_b=True)
    logits = tf.concat([positive, negative], 1) / temperature
    first = tf.zeros([tf.shape(logits)[0]], tf.int32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(first, logits)
    return tf.reduce_mean(losses), logits


def positive_found(logits: tf.Tensor) -> tf.Tensor:
    """Share of queries whose own key is the most similar; float32 scalar.

    Args:
        logits: [b, 1 + K] as `info_nce` returns them.
    """
    return tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), 0), tf.float32))
