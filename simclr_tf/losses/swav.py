"""The loss of SwAV: predict from one crop which prototypes another crop was assigned to."""

import tensorflow as tf

from simclr_tf.losses.replicas import full_precision, gather_rows


def sinkhorn(
    scores: tf.Tensor, epsilon: float, iterations: int, valid: tf.Tensor | None = None
) -> tf.Tensor:
    """Soft assignments of rows to prototypes, all prototypes being used alike.

    Caron et al. 2020, "SwAV", equation 3 and appendix A: the Sinkhorn-Knopp algorithm.

    Args:
        scores: cosines to the prototypes [N, K].
        epsilon: softness of the assignments; > 0.
        iterations: of normalising over rows and prototypes in turn.
        valid: bool [N], which rows count; None = all.

    Returns:
        [N, K], rows summing to 1; rows that do not count are 0.
    """
    q = tf.exp((scores - tf.reduce_max(scores)) / epsilon)
    if valid is not None:
        q *= tf.cast(valid, q.dtype)[:, tf.newaxis]
    for _ in range(iterations):
        q = tf.math.divide_no_nan(q, tf.reduce_sum(q, 0, keepdims=True))
        q = tf.math.divide_no_nan(q, tf.reduce_sum(q, 1, keepdims=True))
    return q


def assignments(
    scores: tf.Tensor,
    epsilon: float,
    iterations: int,
    queued: tf.Tensor | None = None,
    queue_counts: tf.Tensor | bool = True,
) -> tf.Tensor:
    """The assignments of this replica's rows, balanced over the batch of all replicas.

    Args:
        scores: cosines of one view to the prototypes [b, K]; no gradient reaches them.
        epsilon: see `sinkhorn`.
        iterations: see `sinkhorn`.
        queued: cosines of rows of earlier batches [L, K] that are balanced along; None = none.
        queue_counts: scalar bool, whether those count yet.
    """
    rows, first = gather_rows(tf.stop_gradient(full_precision(scores)))
    total, valid = tf.shape(rows)[0], None
    if queued is not None:
        queued = tf.stop_gradient(queued)
        counts = tf.fill([tf.shape(queued)[0]], tf.convert_to_tensor(queue_counts))
        valid = tf.concat([tf.fill([total], True), counts], 0)
        rows = tf.concat([rows, queued], 0)
    return tf.slice(sinkhorn(rows, epsilon, iterations, valid), [first, 0], tf.shape(scores))


def swapped_prediction(
    assigned: list[tf.Tensor], scores: list[tf.Tensor], temperature: float
) -> tf.Tensor:
    """Mean cross entropy between the assignment of a crop and what every other crop predicts.

    SwAV, equations 2 and 6.

    Args:
        assigned: [b, K] for each of the first crops, those that are assigned.
        scores: cosines to the prototypes [b, K] for every crop, the assigned ones first.
        temperature: divides the cosines of the predictions; > 0.

    Returns:
        Scalar; about ln K at chance.
    """
    losses = [
        tf.nn.softmax_cross_entropy_with_logits(q, full_precision(other) / temperature)
        for i, q in enumerate(assigned)
        for j, other in enumerate(scores)
        if j != i
    ]
    return tf.reduce_mean(tf.stack([tf.reduce_mean(loss) for loss in losses]))


def prototypes_used(probabilities: tf.Tensor) -> tf.Tensor:
    """Effective number of prototypes in use: the exponential of the mean assignment's entropy.

    Args:
        probabilities: [b, K], rows summing to 1.

    Returns:
        Scalar from 1 (all rows on one prototype: collapse) to K.
    """
    mean = tf.reduce_mean(probabilities, 0)
    return tf.exp(-tf.reduce_sum(tf.math.xlogy(mean, mean)))
