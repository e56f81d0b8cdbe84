"""The supervised losses and the accuracies logged with them."""

from collections.abc import Sequence

import numpy as np
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
    return _mean_over_labeled(losses, labels)


def classification_loss(
    logits: tf.Tensor,
    labels: tf.Tensor,
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> tf.Tensor:
    """Cross entropy with what unbalanced or doubtful labels ask for; float32 scalar.

    The loss of an example with targets q, probabilities p and true class y is
    w_y sum_k q_k (1 - p_k)^gamma (-log p_k). Without any option this is `supervised_loss`.

    Args:
        logits: [B, K]; half precision is computed in float32.
        labels: Class numbers [B], integers, -1 = no label.
        label_smoothing: Share of the target spread evenly over all classes (Szegedy et al. 2016,
            "Rethinking the Inception Architecture", section 7), in [0, 1).
        focal_gamma: Above 0 the focal loss (Lin et al. 2017, "Focal Loss for Dense Object
            Detection", equation 4): what is known already counts less. `class_weights` are its
            alpha.
        class_weights: w, one a class; None = all 1. The mean over examples is not divided by their
            weights, so it does not depend on which classes a batch happens to hold.

    Returns:
        The mean over the labelled examples; 0 if there is none.
    """
    if logits.dtype in (tf.float16, tf.bfloat16):
        logits = tf.cast(logits, tf.float32)
    classes = logits.shape[-1]
    one_hot = tf.one_hot(tf.maximum(labels, 0), classes, dtype=logits.dtype)
    targets = one_hot * (1 - label_smoothing) + label_smoothing / classes
    log_p = tf.nn.log_softmax(logits)
    # -log p weighted by (1 - p)^gamma, from log(1 - p), which stays finite where p reaches 1.
    terms = -targets * log_p
    if focal_gamma:
        log_rest = tf.math.log(tf.maximum(-tf.math.expm1(log_p), 1e-30))
        terms *= tf.exp(focal_gamma * log_rest)
    losses = tf.reduce_sum(terms, axis=1)
    if class_weights is not None:
        losses *= tf.gather(tf.constant(class_weights, logits.dtype), tf.maximum(labels, 0))
    return _mean_over_labeled(losses, tf.convert_to_tensor(labels))


def balanced_weights(labels: np.ndarray, num_classes: int) -> list[float]:
    """Weights under which every class counts the same: n / (classes that occur x images of it).

    Args:
        labels: Class numbers [n] of the training images, -1 = no label.
        num_classes: K.

    Returns:
        K weights, as scikit-learn's `balanced`; 0 for a class without images.
    """
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    present = np.count_nonzero(counts)
    return [counts.sum() / (present * n) if n else 0.0 for n in counts.tolist()]


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
    return _mean_over_labeled(tf.cast(hit, tf.float32), labels)


def _mean_over_labeled(values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean of the values [B] whose label is not -1; 0 if there is none."""
    labeled = tf.cast(labels >= 0, values.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(values * labeled), tf.reduce_sum(labeled))
