"""The supervised loss and the accuracies logged with it."""

import tensorflow as tf


def supervised_loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Softmax cross entropy, mean over the labelled examples of the batch; scalar.

    Args:
        logits: [B, classes], floating point; half precision is computed in float32.
        labels: class numbers [B], integers, -1 = no label; or probabilities [B, classes].
    """
    if logits.dtype in (tf.float16, tf.bfloat16):
        logits = tf.cast(logits, tf.float32)
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2:
        probabilities = tf.cast(labels, logits.dtype)
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(probabilities, logits))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
    return _mean_over_labelled(losses, labels)


def accuracy(logits: tf.Tensor, labels: tf.Tensor, top: int = 1) -> tf.Tensor:
    """Share of labelled examples whose class is among the `top` largest logits; float32 scalar.

    Args:
        logits: [B, classes].
        labels: class numbers [B], integers, -1 = no label.
        top: how many guesses count; no more than there are classes are taken.
    """
    if top == 1:
        hit = tf.equal(tf.argmax(logits, 1, labels.dtype), labels)
    else:
        hit = tf.math.in_top_k(labels, tf.cast(logits, tf.float32), min(top, logits.shape[-1]))
    return _mean_over_labelled(tf.cast(hit, tf.float32), labels)


def _mean_over_labelled(values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean of the values [B] whose label is not -1; 0 if there is none."""
    labelled = tf.cast(labels >= 0, values.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(values * labelled), tf.reduce_sum(labelled))
