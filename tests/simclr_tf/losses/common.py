"""Runs a loss as training does, on one replica or several."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tests.replicas import mirrored, per_replica

Loss = Callable[..., tf.Tensor]


def on_replicas(
    loss: Loss, arrays: list[np.ndarray], replicas: int
) -> tuple[float, list[np.ndarray]]:
    """The loss of a global batch, and the gradient of each array that training would follow.

    Args:
        loss: Of tensors with this replica's rows.
        arrays: The rows of the global batch, which the replicas share out in order.
        replicas: How many.
    """
    strategy = mirrored(replicas)
    shares = [
        per_replica(strategy, [tf.constant(part) for part in np.split(array, replicas)])
        for array in arrays
    ]

    @tf.function
    def step(*own: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(own)
            value = loss(*own)
            scaled = value / replicas
        return value, tape.gradient(scaled, own, unconnected_gradients="zero")

    value, gradients = strategy.run(step, tuple(shares))
    mean = float(np.mean([v.numpy() for v in strategy.experimental_local_results(value)]))
    joined = [
        np.concatenate([part.numpy() for part in strategy.experimental_local_results(gradient)])
        for gradient in gradients
    ]
    return mean, joined


def numeric_gradient(
    loss: Callable[..., float], arrays: list[np.ndarray], which: int, step: float = 1e-6
) -> np.ndarray:
    """Central differences of a NumPy loss in one of its float64 arrays."""
    gradient = np.zeros_like(arrays[which])
    for place in np.ndindex(gradient.shape):
        values = []
        for sign in (1, -1):
            moved = [array.copy() for array in arrays]
            moved[which][place] += sign * step
            values.append(loss(*moved))
        gradient[place] = (values[0] - values[1]) / (2 * step)
    return gradient


def rows(seed: int, *shape: int) -> np.ndarray:
    """Normal random numbers, float64."""
    return np.random.default_rng(seed).normal(size=shape)
