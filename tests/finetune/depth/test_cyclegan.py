"""A step of training: its losses against NumPy, its parts, and two replicas against one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from finetune.depth.build import Training, build_training
from finetune.depth.cyclegan import CycleStep
from simclr_tf.training.distribution import Devices
from tests.finetune.depth.sets import SIZE, config
from tests.replicas import mirrored, per_replica

CYCLE: dict[str, Any] = {
    "model": "cyclegan", "filters": "2,2", "guided_weight": 0.7, "cycle_weight": 3.0,
    "identity_weight": 2.0, "pool_size": 3,
}  # fmt: skip


def training(replicas: int = 1, steps: int = 10, **values: Any) -> tuple[Training, Devices]:
    strategy = tf.distribute.OneDeviceStrategy("CPU:0") if replicas == 1 else mirrored(replicas)
    devices = Devices(strategy, 0, 1, "CPU")
    settings = config(Path("set"), Path("out"), **values)
    return build_training(settings, SIZE, devices, "float32", steps), devices


def pairs(number: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((number, *SIZE, 2), np.float32)


def take(parts: Training, devices: Devices, batches: list[np.ndarray]) -> list[dict[str, float]]:
    """Steps on global batches [B, H, W, 2]."""
    strategy = devices.strategy
    step: Any = parts.step

    @tf.function
    def one(images: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = {"image": images, "label": tf.zeros([images.shape[0]], tf.int64)}
        return step._from_batch(batch)

    found = []
    for batch in batches:
        split = [tf.constant(part) for part in np.split(batch, devices.num_replicas)]
        scalars = strategy.run(one, (per_replica(strategy, split),))
        found.append({n: float(strategy.reduce("MEAN", v, axis=None)) for n, v in scalars.items()})
    return found


def weights(parts: Training) -> list[np.ndarray]:
    return [v.numpy() for n in parts.networks.values() for v in n.variables]


@pytest.mark.parametrize("gan_loss", ["lsgan", "wgan_gp"])
def test_losses_are_those_of_numpy_on_the_networks_outputs(gan_loss: str) -> None:
    parts, _ = training(**CYCLE, gan_loss=gan_loss)
    step = parts.step
    assert isinstance(step, CycleStep)
    a, b = pairs(3)[..., :1], pairs(3)[..., 1:]
    n = {name: lambda x, net=net: net(x).numpy() for name, net in parts.networks.items()}
    made_b, made_a = n["generator"](a), n["reverse"](b)

    def l1(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.abs(x - y).mean())

    judged = n["discriminator_b"](made_b), n["discriminator_a"](made_a)
    wanted = {
        "cycle": 3 * (l1(n["reverse"](made_b), a) + l1(n["generator"](made_a), b)),
        "identity": 2 * (l1(n["generator"](b), b) + l1(n["reverse"](a), a)),
        "guided": 0.7 * (l1(made_b, b) + l1(made_a, a)),
        "adversarial": sum(
            float(((x - 1) ** 2).mean() if gan_loss == "lsgan" else -x.mean()) for x in judged
        ),
    }
    found = step.generator_method.generator_losses(tf.constant(a), tf.constant(b))
    assert {k: float(v) for k, v in found.items()} == pytest.approx(wanted, rel=1e-4)
    scores = [(n["discriminator_a"](a), judged[1]), (n["discriminator_b"](b), judged[0])]
    found = step.discriminator_losses(
        *map(tf.constant, (a, b, made_a, made_b)), tf.constant(0, tf.int64)
    )
    for name, (real, made) in zip("ab", scores, strict=True):
        least_squares = 0.5 * (((real - 1) ** 2).mean() + (made**2).mean())
        value = least_squares if gan_loss == "lsgan" else made.mean() - real.mean()
        assert float(found[f"discriminator_{name}"]) == pytest.approx(float(value), rel=1e-4)
    assert ("penalty_a" in found) == (gan_loss == "wgan_gp")


def test_a_weight_of_0_leaves_a_loss_out() -> None:
    parts, _ = training(model="cyclegan", filters="2,2", cycle_weight=0.0, identity_weight=0.0)
    step: Any = parts.step
    a = tf.constant(pairs(2)[..., :1])
    assert list(step.generator_method.generator_losses(a, a)) == ["adversarial"]


@pytest.mark.slow
def test_discriminators_are_updated_so_often_and_have_their_own_schedule() -> None:
    parts, devices = training(
        model="cyclegan", filters="2,2", cycle_weight=0.0, identity_weight=0.0, pool_size=0,
        residual_blocks=0, critic_steps=3, learning_rate=0.01, discriminator_learning_rate=0.04,
        decay_start=0.5, steps=4,
    )  # fmt: skip
    found = take(parts, devices, [pairs(6, seed) for seed in range(4)])
    step: Any = parts.step
    assert int(step._state.generators.iterations) == 4
    assert int(step._state.discriminators.iterations) == 12
    rates = [row["learning_rate"] for row in found]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.01, 0.005], rtol=1e-5)
    # Of the last of three updates: numbers 2, 5, 8, 11 of 12.
    critic = [row["discriminator_rate"] for row in found]
    np.testing.assert_allclose(critic, [0.04, 0.04, 0.04 * 4 / 6, 0.04 / 6], rtol=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        {"model": "autoencoder"},
        {"model": "unet", "filters": "2,3"},
        pytest.param(
            {**CYCLE, "gan_loss": "wgan_gp", "critic_steps": 2, "residual_blocks": 0},
            marks=[pytest.mark.slow, pytest.mark.thorough],
        ),
    ],
)
def test_two_replicas_learn_what_one_does(values: dict[str, Any]) -> None:
    batches = [pairs(8, seed) for seed in range(2)]
    found = []
    for replicas in (1, 2):
        parts, devices = training(replicas, **values, learning_rate=1e-3)
        rows = take(parts, devices, batches)
        found.append((rows, weights(parts)))
    (one, first), (two, second) = found
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=2e-3, abs=1e-3)
    # Adam makes a whole step of a gradient that is nothing but rounding.
    apart = np.concatenate([np.abs(a - b).ravel() for a, b in zip(first, second, strict=True)])
    assert np.quantile(apart, 0.98) < 1e-4
