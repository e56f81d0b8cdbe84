"""Optimizers follow the recorded trajectories of the reference's."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.optim.factory import build_optimizer
from simclr_tf.optim.lars import LARS
from simclr_tf.optim.schedules import WarmUpAndCosineDecay, scaled_learning_rate, warmup_steps
from tests import golden
from tests.replicas import mirrored, per_replica

FACTS = golden.load_json("optimizer/optimizer")
NAMES = [name for name, _ in FACTS["variables"]]
LARS_CASES = [name for name, case in FACTS["cases"].items() if "flag" not in case]
FLAG_CASES = [name for name, case in FACTS["cases"].items() if "flag" in case]


def stored() -> dict[str, np.ndarray]:
    return golden.load_arrays("optimizer/trajectories")


def start_variables(dtype: str = "float32") -> dict[str, keras.Variable]:
    return {name: keras.Variable(stored()[f"init/{name}"], dtype=dtype) for name in NAMES}


def gradients(step: int, dtype: str = "float32") -> list[tf.Tensor]:
    return [tf.constant(stored()[f"grad/{step}/{name}"], dtype) for name in NAMES]


def matching(variables: dict[str, keras.Variable], patterns: list[str] | None) -> list[Any]:
    return [v for n, v in variables.items() if any(p in n for p in patterns or [])]


def schedule_of(case: dict[str, Any]) -> WarmUpAndCosineDecay:
    facts = case["schedule"]
    batch = facts["train_batch_size"]
    return WarmUpAndCosineDecay(
        scaled_learning_rate(facts["base_learning_rate"], batch, facts["scaling"]),
        warmup_steps(facts["num_examples"], batch, facts["warmup_epochs"]),
        facts["train_steps"],
    )


def lars_of(case: dict[str, Any], variables: dict[str, keras.Variable]) -> LARS:
    options = {k: case[k] for k in ("use_nesterov", "classic_momentum", "eeta") if k in case}
    rate = schedule_of(case) if case["lr"] == "schedule" else case["lr"]
    optimizer = LARS(rate, case["momentum"], case["weight_decay"], **options, exclude_vectors=False)
    optimizer.exclude_from_weight_decay(matching(variables, case["ex"]))
    if "exl" in case:
        optimizer.exclude_from_layer_adaptation(matching(variables, case["exl"]))
    return optimizer


def check_trajectory(
    case: str,
    optimizer: keras.optimizers.Optimizer,
    variables: dict[str, keras.Variable],
    velocity: Callable[[int], np.ndarray] | None,
) -> None:
    optimizer.build(list(variables.values()))
    for step in range(FACTS["steps"]):
        optimizer.apply(gradients(step), list(variables.values()))
        for i, name in enumerate(NAMES):
            expected = stored()[f"{case}/param/{name}"][step]
            atol = 1e-6 * np.abs(expected).max()
            actual = variables[name].numpy()
            np.testing.assert_allclose(actual, expected, 1e-6, atol, err_msg=f"{name} {step}")
            key = f"{case}/momentum/{name}"
            if velocity is not None and key in stored():
                expected = stored()[key][step]
                atol = 1e-6 * np.abs(expected).max()
                np.testing.assert_allclose(velocity(i), expected, 1e-6, atol, err_msg=name)
    assert optimizer.iterations.numpy() == FACTS["cases"][case]["iterations"]


@pytest.mark.parametrize("case", LARS_CASES)
def test_lars_trajectory(case: str) -> None:
    variables = start_variables()
    optimizer = lars_of(FACTS["cases"][case], variables)
    check_trajectory(case, optimizer, variables, lambda i: optimizer.momentums[i].numpy())


@pytest.mark.parametrize("case", FLAG_CASES)
def test_trajectory_of_every_optimizer_flag(case: str) -> None:
    facts, variables = FACTS["cases"][case], start_variables()
    optimizer = build_optimizer(
        facts["flag"],
        facts["lr"],
        momentum=facts["momentum"],
        weight_decay=facts.get("weight_decay", 0.0),
        supervised_head=matching(variables, ["head_supervised"]),
    )
    velocity = None
    if facts["flag"] == "lars":
        velocity = lambda i: optimizer.momentums[i].numpy()  # noqa: E731
    check_trajectory(case, optimizer, variables, velocity)


def test_learning_rates_of_the_schedule_case() -> None:
    case = FACTS["cases"]["lars_schedule"]
    schedule = schedule_of(case)
    rates = [float(schedule(step)) for step in range(FACTS["steps"])]
    np.testing.assert_allclose(rates, case["lr_per_step"], rtol=1e-6)


def numpy_lars(
    weight: np.ndarray, grads: list[np.ndarray], rate: float, decay: float
) -> np.ndarray:
    velocity = np.zeros_like(weight)
    for grad in grads:
        grad = grad + decay * weight  # noqa: PLW2901
        ratio = 0.001 * np.linalg.norm(weight) / np.linalg.norm(grad)
        velocity = 0.9 * velocity + rate * ratio * grad
        weight = weight - velocity
    return weight


def test_double_precision_is_not_rounded() -> None:
    rng = golden.rng("lars64")
    weight = rng.standard_normal((4, 3))
    grads = [rng.standard_normal((4, 3)) for _ in range(5)]
    variable = keras.Variable(weight, dtype="float64")
    optimizer = LARS(WarmUpAndCosineDecay(0.5, 0, 10**9), weight_decay=0.01)
    optimizer.build([variable])
    for grad in grads:
        optimizer.apply([tf.constant(grad)], [variable])
    expected = numpy_lars(weight, grads, 0.5, 0.01)
    np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-12)


def test_vectors_and_the_supervised_head_are_left_alone() -> None:
    kernel, vector, head = (keras.Variable(np.ones(s, "float32")) for s in ((2, 2), (2,), (2, 3)))
    optimizer = build_optimizer(
        "lars",
        1.0,
        momentum=0.0,
        weight_decay=0.5,
        supervised_head=[head],
        variables=[kernel, vector, head],
    )
    grads = [tf.ones(v.shape) for v in (kernel, vector, head)]
    optimizer.apply(grads, [kernel, vector, head])
    np.testing.assert_allclose(vector.numpy(), 0.0)
    np.testing.assert_allclose(head.numpy(), 0.0)
    np.testing.assert_allclose(kernel.numpy(), 1 - 0.001 * (2 / 3) * 1.5, rtol=1e-6)


def test_gradients_are_summed_over_replicas() -> None:
    start = golden.rng("mirror").standard_normal((3, 2)).astype(np.float32)
    grads = golden.rng("mirror grads").standard_normal((3, 2, 3, 2)).astype(np.float32)
    alone = keras.Variable(start)
    reference = LARS(0.3, weight_decay=0.01)
    for grad in grads:
        reference.apply([tf.constant(grad.sum(0))], [alone])

    strategy = mirrored(2)
    with strategy.scope():
        shared = keras.Variable(start)
        optimizer = LARS(0.3, weight_decay=0.01)
        optimizer.build([shared])

    @tf.function
    def step(grad: tf.Tensor) -> None:
        optimizer.apply([grad], [shared])

    for grad in grads:
        strategy.run(step, (per_replica(strategy, [tf.constant(g) for g in grad]),))
    np.testing.assert_allclose(shared.numpy(), alone.numpy(), rtol=1e-6)
    assert optimizer.iterations.numpy() == len(grads)


def test_survives_its_config() -> None:
    schedule = WarmUpAndCosineDecay(0.5, 3, 10)
    optimizer = LARS(schedule, 0.8, 1e-4, use_nesterov=True, classic_momentum=False, eeta=0.02)
    config = keras.optimizers.serialize(optimizer)
    copy = keras.optimizers.deserialize(config)
    assert isinstance(copy, LARS)
    assert copy.get_config() == optimizer.get_config()
    assert float(copy.learning_rate) == float(schedule(0))


def test_adamw_spares_vectors() -> None:
    kernel, vector = (
        keras.Variable(np.ones((2, 2), "float32")),
        keras.Variable(np.ones(2, "float32")),
    )
    optimizer = build_optimizer("adamw", 0.1, weight_decay=0.5, variables=[kernel, vector])
    optimizer.apply([tf.zeros([2, 2]), tf.zeros([2])], [kernel, vector])
    np.testing.assert_allclose(kernel.numpy(), 0.95, rtol=1e-6)
    np.testing.assert_allclose(vector.numpy(), 1.0)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="lars, momentum, adam, adamw"):
        build_optimizer("lamb", 0.1)
