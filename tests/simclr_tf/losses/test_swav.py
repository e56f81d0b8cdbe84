"""SwAV's loss against loops over images and prototypes."""

import math

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.losses.swav import assignments, prototypes_used, sinkhorn, swapped_prediction
from tests.simclr_tf.losses.common import numeric_gradient, on_replicas, rows

EPSILON, TEMPERATURE = 0.5, 0.3


def loop_sinkhorn(scores: np.ndarray, iterations: int) -> np.ndarray:
    """The code listing of the paper's appendix A, sum by sum: rows here are its columns."""
    n, k = scores.shape
    q = np.array([[math.exp(s / EPSILON) for s in row] for row in scores])
    q = q / q.sum()
    for _ in range(iterations):
        for j in range(k):
            q[:, j] = q[:, j] / q[:, j].sum() / k
        for i in range(n):
            q[i] = q[i] / q[i].sum() / n
    return q * n


def loop_loss(first: np.ndarray, second: np.ndarray, small: np.ndarray) -> float:
    crops = [first, second, small]
    total, terms = 0.0, 0
    for i in range(2):
        q = loop_sinkhorn(crops[i], 3)
        for j, crop in enumerate(crops):
            if j == i:
                continue
            for row, scores in zip(q, crop, strict=True):
                exponents = [math.exp(s / TEMPERATURE) for s in scores]
                log_p = [math.log(e / sum(exponents)) for e in exponents]
                total -= sum(row[k] * log_p[k] for k in range(len(row))) / len(q)
            terms += 1
    return total / terms


def loss(first: tf.Tensor, second: tf.Tensor, small: tf.Tensor) -> tf.Tensor:
    assigned = [assignments(scores, EPSILON, 3) for scores in (first, second)]
    return swapped_prediction(assigned, [first, second, small], TEMPERATURE)


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_equals_the_papers_listing(iterations: int) -> None:
    scores = np.tanh(rows(0, 6, 4))
    q = sinkhorn(tf.constant(scores), EPSILON, iterations)
    np.testing.assert_allclose(q, loop_sinkhorn(scores, iterations), rtol=1e-10)


def test_sinkhorn_uses_all_prototypes_alike_where_a_softmax_would_not() -> None:
    scores = np.tanh(rows(0, 64, 4)) + np.array([1.0, 0, 0, 0])  # one prototype attracts all
    q = sinkhorn(tf.constant(scores), EPSILON, 50).numpy()
    np.testing.assert_allclose(q.sum(0), 16, rtol=1e-3)
    np.testing.assert_allclose(q.sum(1), 1, rtol=1e-10)


@pytest.mark.parametrize("replicas", [1, 2])
def test_equals_loops_over_the_whole_batch(replicas: int) -> None:
    arrays = [np.tanh(rows(i, 4, 3)) for i in range(3)]
    value, gradients = on_replicas(loss, arrays, replicas)
    assert value == pytest.approx(loop_loss(*arrays), rel=1e-10)
    # The small crop is not assigned, so nothing of its gradient is held back.
    np.testing.assert_allclose(gradients[2], numeric_gradient(loop_loss, arrays, 2), atol=1e-7)
    _, expected = on_replicas(loss, arrays, 1)
    for mine, single in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(mine, single, rtol=1e-9, atol=1e-12)


def test_assignments_pass_no_gradient() -> None:
    _, (gradient,) = on_replicas(
        lambda s: tf.reduce_sum(assignments(s, EPSILON, 3)[:, 0]), [rows(0, 4, 3)], 1
    )
    np.testing.assert_array_equal(gradient, 0)


def test_a_queue_is_balanced_along_once_it_counts() -> None:
    scores, queued = np.tanh(rows(0, 4, 3)), np.tanh(rows(1, 5, 3))
    own, queue = tf.constant(scores), tf.constant(queued)
    counted = assignments(own, EPSILON, 3, queue, True)
    expected = loop_sinkhorn(np.concatenate([scores, queued]), 3)[:4]
    np.testing.assert_allclose(counted, expected, rtol=1e-10)
    ignored = assignments(own, EPSILON, 3, queue, False)
    np.testing.assert_allclose(ignored, loop_sinkhorn(scores, 3), rtol=1e-10)


def test_how_many_prototypes_are_used() -> None:
    one = tf.constant(np.repeat([[1.0, 0, 0, 0]], 8, axis=0))
    assert float(prototypes_used(one)) == pytest.approx(1)
    each = tf.constant(np.tile(np.eye(4), (2, 1)))
    assert float(prototypes_used(each)) == pytest.approx(4)
