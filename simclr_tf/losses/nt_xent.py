"""NT-Xent, the contrastive loss of SimCLR, with the negatives of all replicas."""

from typing import NamedTuple

import tensorflow as tf

from simclr_tf.losses.replicas import full_precision, gather_rows

MASKED = 1e9


class NTXent(NamedTuple):
    """The loss and what its metrics are computed from.

    Attributes:
        loss: scalar, mean over the batch of the sum of both sides; at chance 2 ln(2N - 1), and
            2 ln(2N - 2) if decoupled.
        logits_ab: similarities of this replica's first views to all second views [b, N], divided
            by the temperature.
        labels: one-hot position of the positive among [ab, aa], [b, 2N].
    """

    loss: tf.Tensor
    logits_ab: tf.Tensor
    labels: tf.Tensor


def nt_xent(
    hidden: tf.Tensor, temperature: float, hidden_norm: bool = True, decoupled: bool = False
) -> NTXent:
    """Normalised temperature-scaled cross entropy (Chen et al. 2020, SimCLR, equation 1).

    Inside `strategy.run` the negatives come from all replicas. The loss is then that of this
    replica's examples; the mean over replicas is the loss of the whole batch, and gradients reach
    every replica's examples through the gathering.

    Args:
        hidden: projections [2b, d]: b first views, then their b second views. Half precision is
            computed in float32.
        temperature: divides the similarities; > 0.
        hidden_norm: normalise projections to unit length, so that similarities are cosines.
        decoupled: leave the positive out of the denominator (Yeh et al. 2022, "Decoupled
            Contrastive Learning", equation 6), where it weakens the gradients of small batches.
            The loss may fall below zero then, and wants two examples at least.

    Returns:
        Loss, similarities and labels. N = b x number of replicas.
    """
    hidden = full_precision(hidden)
    if hidden_norm:
        hidden = tf.math.l2_normalize(hidden, -1)
    views = tf.stack(tf.split(hidden, 2))
    all_views, first = gather_rows(views)
    a, b = views[0], views[1]
    all_a, all_b = all_views[0], all_views[1]

    batch, total = tf.shape(a)[0], tf.shape(all_a)[0]
    positive = tf.range(batch) + first
    itself = tf.one_hot(positive, total, on_value=MASKED, off_value=0.0, dtype=hidden.dtype)

    def similarity(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, y, transpose_b=True) / temperature

    def side(to_other: tf.Tensor, to_own: tf.Tensor) -> tf.Tensor:
        if decoupled:
            negatives = tf.concat([to_other - itself, to_own - itself], 1)
            attraction = tf.gather(to_other, positive, axis=1, batch_dims=1)
            return tf.reduce_logsumexp(negatives, 1) - attraction
        logits = tf.concat([to_other, to_own - itself], 1)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(positive, logits)

    logits_ab = similarity(a, all_b)
    loss_a = side(logits_ab, similarity(a, all_a))
    loss_b = side(similarity(b, all_a), similarity(b, all_b))
    labels = tf.one_hot(positive, 2 * total, dtype=hidden.dtype)
    return NTXent(tf.reduce_mean(loss_a + loss_b), logits_ab, labels)


def contrastive_accuracy(logits_ab: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Share of first views whose most similar second view is their own; scalar in [0, 1].

    Args:
        logits_ab: [b, N] as `nt_xent` returns it.
        labels: [b, 2N] as `nt_xent` returns it.
    """
    hit = tf.equal(tf.argmax(labels, 1), tf.argmax(logits_ab, 1))
    return tf.reduce_mean(tf.cast(hit, logits_ab.dtype))


def contrastive_entropy(logits_ab: tf.Tensor) -> tf.Tensor:
    """Mean entropy in nats of the similarities to second views; 0 (sure) to ln N (chance)."""
    probability = tf.nn.softmax(logits_ab)
    return -tf.reduce_mean(tf.reduce_sum(probability * tf.math.log(probability + 1e-8), -1))
