"""The loss of BYOL and SimSiam against a loop over images."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.losses.cosine import negative_cosine, projection_spread
from tests.simclr_tf.losses.common import numeric_gradient, on_replicas, rows


def loop_byol(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Equation 2 of the BYOL paper: squared distance at unit length."""
    total = 0.0
    for p, z in zip(predictions, targets, strict=True):
        total += np.sum((p / np.linalg.norm(p) - z / np.linalg.norm(z)) ** 2)
    return total / len(predictions)


@pytest.mark.parametrize("replicas", [1, 2])
def test_two_plus_twice_the_loss_is_byols_squared_distance(replicas: int) -> None:
    arrays = [rows(0, 4, 6), rows(1, 4, 6)]
    value, gradients = on_replicas(lambda p, z: 2 + 2 * negative_cosine(p, z), arrays, replicas)
    assert value == pytest.approx(loop_byol(*arrays), rel=1e-10)
    np.testing.assert_allclose(gradients[0], numeric_gradient(loop_byol, arrays, 0), atol=1e-7)
    np.testing.assert_array_equal(gradients[1], 0)  # targets get no gradient


def test_half_precision_is_computed_in_float32() -> None:
    loss = negative_cosine(tf.ones([2, 3], tf.bfloat16), tf.ones([2, 3], tf.bfloat16))
    assert loss.dtype == tf.float32
    assert float(loss) == pytest.approx(-1, rel=1e-6)


def test_the_spread_is_0_for_equal_projections_and_near_1_for_random_ones() -> None:
    alike = tf.constant(np.repeat(rows(0, 1, 64), 512, axis=0))
    assert float(projection_spread(alike)) == pytest.approx(0, abs=1e-6)
    assert float(projection_spread(tf.constant(rows(1, 512, 64)))) == pytest.approx(1, abs=0.02)
