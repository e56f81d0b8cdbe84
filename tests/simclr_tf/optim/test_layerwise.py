"""Per-variable learning rates do what separate optimizers would do."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.optim.factory import OPTIMIZERS, build_optimizer, decayed_rates
from tests.replicas import mirrored

SHAPES = [(4, 3), (3,), (3, 2), (2, 2)]
FACTORS = [0.25, 0.25, 0.5, 1.0]


def start(seed: int = 0) -> list[keras.Variable]:
    rng = np.random.default_rng(seed)
    return [keras.Variable(rng.normal(size=shape).astype("float32")) for shape in SHAPES]


def gradient(step: int, i: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng([step, i]).normal(size=SHAPES[i]).astype("float32"))


def train(optimizer: keras.optimizers.Optimizer, variables: list[Any], which: list[int]) -> None:
    for step in range(5):
        optimizer.apply([gradient(step, i) for i in which], variables)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_factors_on_the_rate_equal_an_optimizer_for_each_variable(name: str) -> None:
    options = {"momentum": 0.9, "weight_decay": 0.05}
    ours = start()
    factors = {id(v): f for v, f in zip(ours, FACTORS, strict=True)}
    together = build_optimizer(name, 0.1, **options, variables=ours, rate_factors=factors)
    train(together, ours, [0, 1, 2, 3])
    alone = start()
    for i, (variable, factor) in enumerate(zip(alone, FACTORS, strict=True)):
        own = build_optimizer(name, 0.1 * factor, **options, variables=[variable])
        train(own, [variable], [i])
    for a, b in zip(ours, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)
    assert not np.allclose(ours[3], start()[3])


@pytest.mark.parametrize("name", ["adamw", "momentum"])
def test_factors_hold_under_two_replicas(name: str) -> None:
    single = start()
    factors = {id(v): f for v, f in zip(single, FACTORS, strict=True)}
    plain = build_optimizer(name, 0.1, weight_decay=0.1, variables=single, rate_factors=factors)
    train(plain, single, [0, 1, 2, 3])
    strategy = mirrored(2)
    with strategy.scope():
        shared = start()
        factors = {id(v): f for v, f in zip(shared, FACTORS, strict=True)}
        optimizer = build_optimizer(
            name, 0.1, weight_decay=0.1, variables=shared, rate_factors=factors
        )

    @tf.function
    def step(*gradients: tf.Tensor) -> None:
        # Gradients of replicas are summed.
        strategy.run(lambda: optimizer.apply([g / 2 for g in gradients], shared))

    for number in range(5):
        step(*(gradient(number, i) for i in range(4)))
    for a, b in zip(single, shared, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


def test_rates_shrink_from_the_output_to_the_input() -> None:
    a, b, c, d = start()
    rates = decayed_rates([[a, b], [c], [d]], 0.5)
    assert [rates[id(v)] for v in (a, b, c, d)] == [0.25, 0.25, 0.5, 1.0]
