"""Barlow Twins' loss against loops over the dimensions."""

import math

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.losses.barlow_twins import barlow_twins_loss
from tests.simclr_tf.losses.common import numeric_gradient, on_replicas, rows

LAMBDA = 0.01


def loop_loss(a: np.ndarray, b: np.ndarray) -> float:
    """Equations 1 and 2 of the paper, with the batch normalisation of its code."""
    a, b = a - a.mean(0), b - b.mean(0)
    total, dims = 0.0, a.shape[1]
    for i in range(dims):
        for j in range(dims):
            both = math.sqrt((np.mean(a[:, i] ** 2) + 1e-5) * (np.mean(b[:, j] ** 2) + 1e-5))
            c = np.mean(a[:, i] * b[:, j]) / both
            total += (1 - c) ** 2 if i == j else LAMBDA * c**2
    return total


@pytest.mark.parametrize("replicas", [1, 2])
def test_equals_a_loop_over_dimensions_of_the_whole_batch(replicas: int) -> None:
    arrays = [rows(0, 6, 4), 0.5 * rows(0, 6, 4) + rows(1, 6, 4)]
    value, gradients = on_replicas(
        lambda a, b: barlow_twins_loss(a, b, LAMBDA).loss, arrays, replicas
    )
    assert value == pytest.approx(loop_loss(*arrays), rel=1e-10)
    for which in range(2):
        expected = numeric_gradient(loop_loss, arrays, which)
        np.testing.assert_allclose(gradients[which], expected, atol=1e-7)


def test_equal_views_without_redundancy_have_no_loss_and_unrelated_ones_miss_the_diagonal() -> None:
    whitened = np.linalg.qr(rows(0, 64, 8) - rows(0, 64, 8).mean(0))[0]
    same = tf.constant(whitened * 8)
    assert float(barlow_twins_loss(same, same, LAMBDA).loss) == pytest.approx(0, abs=1e-6)
    far = barlow_twins_loss(tf.constant(rows(1, 4096, 8)), tf.constant(rows(2, 4096, 8)), LAMBDA)
    assert float(far.on_diagonal) == pytest.approx(8, rel=0.05)
