"""VICReg's loss against loops over images and dimensions."""

import math

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.losses.vicreg import vicreg_terms
from tests.simclr_tf.losses.common import numeric_gradient, on_replicas, rows

WEIGHTS = (25.0, 25.0, 1.0)


def loop_terms(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Algorithm 1 of the paper, element by element."""
    n, d = a.shape
    invariance = sum((a[i, j] - b[i, j]) ** 2 for i in range(n) for j in range(d)) / (n * d)
    variance = covariance = 0.0
    for z in (a, b):
        centerd = z - z.mean(0)
        for j in range(d):
            std = math.sqrt(sum(centerd[:, j] ** 2) / (n - 1) + 1e-4)
            variance += max(0.0, 1 - std) / d
        for j in range(d):
            for k in range(d):
                if j != k:
                    covariance += (sum(centerd[:, j] * centerd[:, k]) / (n - 1)) ** 2 / d
    return invariance, variance, covariance


def loop_loss(a: np.ndarray, b: np.ndarray) -> float:
    return sum(w * t for w, t in zip(WEIGHTS, loop_terms(a, b), strict=True))


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_equals_loops_over_the_whole_batch(replicas: int, scale: float) -> None:
    arrays = [scale * rows(0, 6, 4), scale * rows(1, 6, 4)]

    def loss(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        return tf.add_n([w * t for w, t in zip(WEIGHTS, vicreg_terms(a, b), strict=True)])

    value, gradients = on_replicas(loss, arrays, replicas)
    assert value == pytest.approx(loop_loss(*arrays), rel=1e-10)
    for which in range(2):
        expected = numeric_gradient(loop_loss, arrays, which)
        np.testing.assert_allclose(gradients[which], expected, atol=1e-6)


def test_projections_that_are_all_alike_lack_all_variance() -> None:
    alike = tf.ones([8, 4])
    terms = vicreg_terms(alike, alike)
    assert float(terms.invariance) == float(terms.covariance) == 0
    assert float(terms.variance) == pytest.approx(2 * (1 - 0.01), rel=1e-5)
