"""Steps and learning rates equal the recorded ones."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.optim.schedules import (
    WarmUpAndCosineDecay,
    checkpoint_interval,
    run_steps,
    scaled_learning_rate,
    steps_per_epoch,
    train_steps,
    warmup_steps,
)
from tests import golden

FACTS = golden.load_json("optimizer/optimizer")


def schedule_of(case: dict[str, Any]) -> WarmUpAndCosineDecay:
    batch = case["train_batch_size"]
    return WarmUpAndCosineDecay(
        scaled_learning_rate(case["base"], batch, case["scaling"]),
        warmup_steps(case["n"], batch, case["warmup_epochs"]),
        train_steps(case["n"], batch, case["train_epochs"], case.get("train_steps", 0)),
    )


@pytest.mark.parametrize("case", FACTS["schedule"], ids=lambda c: f"{c['n']}-{c['scaling']}")
def test_recorded_learning_rates(case: dict[str, Any]) -> None:
    schedule = schedule_of(case)
    assert schedule.total_steps == case["train_steps_resolved"]
    assert schedule.warmup == case["warmup_steps"]
    rates = schedule(tf.constant(case["steps"], tf.int64)).numpy()
    expected = np.array(case["lr"])
    if schedule.warmup == schedule.total_steps:
        # The reference divides 0 by 0 from the end of such a run on; here the rate is 0 after it.
        known = np.isfinite(expected)
        assert known.sum() == schedule.warmup
        np.testing.assert_array_equal(rates[schedule.warmup + 1 :], 0.0)
        rates, expected = rates[known], expected[known]
    # Near the end 1 + cos cancels, and its last float32 digit is all that is left.
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-7 * schedule.peak)


@pytest.mark.parametrize("case", FACTS["train_steps"], ids=lambda c: str(c["result"]))
def test_recorded_numbers_of_steps(case: dict[str, int]) -> None:
    steps = train_steps(
        case["num_examples"],
        case["train_batch_size"],
        case["train_epochs"],
        case["train_steps_flag"],
    )
    assert steps == case["result"]


@pytest.mark.parametrize(
    ("batch", "end"), [(128, 10100), (256, 5050), (512, 2525), (1024, 1261), (2048, 630)]
)
def test_where_runs_of_12827_images_end(batch: int, end: int) -> None:
    assert run_steps(train_steps(12827, batch, 100), checkpoint_interval(12827, batch)) == end


def test_checkpoint_intervals() -> None:
    assert checkpoint_interval(1000, 64, checkpoint_epochs=2) == 32
    assert checkpoint_interval(1000, 64, checkpoint_epochs=2, checkpoint_steps=7) == 7
    assert steps_per_epoch(10, 64) == 1


def test_linear_and_square_root_scaling_meet_at_4096() -> None:
    linear = scaled_learning_rate(0.3, 4096, "linear")
    assert linear == pytest.approx(scaled_learning_rate(0.075, 4096, "sqrt"))
    assert linear == pytest.approx(4.8)
    with pytest.raises(UserError, match="linear or sqrt"):
        scaled_learning_rate(0.3, 256, "cubic")  # type: ignore[arg-type]


def test_shape_of_the_schedule() -> None:
    schedule = WarmUpAndCosineDecay(2.0, 4, 12)
    rates = [float(schedule(step)) for step in range(14)]
    assert rates[0] == 0.0
    assert rates[2] == pytest.approx(1.0)
    assert max(rates) == rates[4] == pytest.approx(2.0)
    assert rates[8] == pytest.approx(1.0)
    assert rates[12] == rates[13] == pytest.approx(0.0, abs=1e-6)
    assert WarmUpAndCosineDecay.from_config(schedule.get_config()).get_config() == {
        "peak": 2.0,
        "warmup": 4,
        "total_steps": 12,
    }
