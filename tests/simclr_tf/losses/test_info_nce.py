"""MoCo's loss against a loop over queries."""

import math

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.losses.info_nce import info_nce, positive_found
from tests.simclr_tf.losses.common import numeric_gradient, on_replicas, rows

QUEUE = rows(2, 7, 5) / np.linalg.norm(rows(2, 7, 5), axis=1, keepdims=True)
TEMPERATURE = 0.2


def loop_loss(queries: np.ndarray, keys: np.ndarray) -> float:
    """Equation 1 of the MoCo paper, query by query."""
    total = 0.0
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, keys))
    for q, k in zip(*unit, strict=True):
        positive = math.exp(q @ k / TEMPERATURE)
        negatives = sum(math.exp(q @ negative / TEMPERATURE) for negative in QUEUE)
        total -= math.log(positive / (positive + negatives))
    return total / len(queries)


@pytest.mark.parametrize("replicas", [1, 2])
def test_equals_a_loop_over_queries(replicas: int) -> None:
    arrays = [rows(0, 4, 5), rows(1, 4, 5)]
    value, gradients = on_replicas(
        lambda q, k: info_nce(q, k, tf.constant(QUEUE), TEMPERATURE)[0], arrays, replicas
    )
    assert value == pytest.approx(loop_loss(*arrays), rel=1e-10)
    np.testing.assert_allclose(gradients[0], numeric_gradient(loop_loss, arrays, 0), atol=1e-7)
    np.testing.assert_array_equal(gradients[1], 0)  # keys get no gradient


def test_chance_is_the_logarithm_of_all_candidates() -> None:
    alike = tf.ones([4, 5])
    loss, _ = info_nce(alike, alike, tf.ones([31, 5]) / math.sqrt(5), 0.1)
    assert float(loss) == pytest.approx(math.log(32), rel=1e-5)


def test_the_accuracy_counts_queries_whose_own_key_is_nearest() -> None:
    logits = tf.constant([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert float(positive_found(logits)) == 0.5
