"""Losses against plain NumPy, the gradient penalty against numerical gradients, schedules."""

import numpy as np
import pytest
import tensorflow as tf

from finetune.depth import cyclegan
from finetune.depth.build import ConstantThenLinear, constant_then_linear


def scores(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (3, 2, 4, 1)).astype(np.float32)


def test_losses_are_those_of_loops_over_all_values() -> None:
    real, made = scores(0), scores(1)
    pairs = list(zip(real.ravel().tolist(), made.ravel().tolist(), strict=True))
    n = len(pairs)
    wanted = {
        "l1": sum(abs(r - m) for r, m in pairs) / n,
        "l2": sum((r - m) ** 2 for r, m in pairs) / n,
        "lsgan_discriminator": sum((r - 1) ** 2 + m**2 for r, m in pairs) / (2 * n),
        "wgan_critic": sum(m - r for r, m in pairs) / n,
    }
    for name, value in wanted.items():
        found = getattr(cyclegan, name)(tf.constant(real), tf.constant(made))
        assert float(found) == pytest.approx(value, rel=1e-5), name
    assert float(cyclegan.lsgan_generator(made)) == pytest.approx(
        sum((m - 1) ** 2 for _, m in pairs) / n, rel=1e-5
    )
    assert float(cyclegan.wgan_generator(made)) == pytest.approx(-sum(m for _, m in pairs) / n)


KERNELS = [(3, 3, 1, 3), (2, 2, 3, 1)]


def test_the_gradient_penalty_is_that_of_numerical_gradients() -> None:
    kernels = [np.random.default_rng(i).normal(0, 1, k) for i, k in enumerate(KERNELS)]

    def critic(images: tf.Tensor) -> tf.Tensor:
        for kernel in kernels:
            images = tf.tanh(tf.nn.conv2d(images, kernel, 1, "SAME"))
        return images

    rng = np.random.default_rng(0)
    real, made = rng.random((2, 2, 4, 3, 1))
    share = np.array([0.3, 0.8])
    between = share[:, None, None, None] * real + (1 - share[:, None, None, None]) * made
    terms = []
    for image in between:
        gradient = np.zeros(12)
        for i in range(12):
            step = np.zeros(12)
            step[i] = 1e-5
            up, down = (
                float(tf.reduce_mean(critic((image + sign * step.reshape(4, 3, 1))[None])))
                for sign in (1, -1)
            )
            gradient[i] = (up - down) / 2e-5
        terms.append((np.linalg.norm(gradient) - 1) ** 2)
    found = cyclegan.gradient_penalty(critic, *map(tf.constant, (real, made, share)))
    assert float(found) == pytest.approx(np.mean(terms), rel=1e-6)


def test_a_flat_critic_has_a_penalty_with_finite_gradients() -> None:
    weight = tf.Variable(0.0)
    images = tf.zeros([2, 3, 3, 1])
    with tf.GradientTape() as tape:
        penalty = cyclegan.gradient_penalty(lambda x: x * weight, images, images, tf.zeros([2]))
    assert float(penalty) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(float(tape.gradient(penalty, weight)))


def test_rates_are_constant_then_fall_in_a_line_to_0() -> None:
    schedule = constant_then_linear(0.1, 0.5, 10)
    rates = [float(schedule(step)) for step in range(12)]
    falling = [0.1 * left / 5 for left in (5, 4, 3, 2, 1)]
    np.testing.assert_allclose(rates, [0.1] * 5 + falling + [0, 0], atol=1e-8)
    again = ConstantThenLinear(**schedule.get_config())
    assert float(again(7)) == rates[7]
    constant = constant_then_linear(0.1, 1.0, 10)
    assert [float(constant(step)) for step in (0, 9, 20)] == pytest.approx([0.1] * 3)
