import logging
import math

import numpy as np
import pytest

from simclr_tf.methods.base import HealthCheck
from simclr_tf.training.health import (
    DivergedError,
    HealthWatch,
    check_metrics,
    check_scores,
    nt_xent_at_chance,
    warnings_before_start,
)


def test_chance_is_the_loss_of_a_network_that_gives_one_answer_to_everything() -> None:
    """The levels that SimCLR's logs show for batches of 128, 256, 512."""
    for batch, level in ((128, 11.08), (256, 12.47), (512, 13.86)):
        assert nt_xent_at_chance(batch) == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize("decoupled", [False, True])
def test_chance_equals_nt_xent_of_orthogonal_projections(decoupled: bool) -> None:
    import tensorflow as tf

    from simclr_tf.losses.nt_xent import nt_xent

    hidden = tf.eye(16)  # every similarity is 0: the network tells nothing apart
    loss = float(nt_xent(hidden, 0.5, decoupled=decoupled).loss)
    assert loss == pytest.approx(nt_xent_at_chance(8, decoupled), rel=1e-5)


def test_too_few_updates_are_named_with_their_number() -> None:
    """215 images in batches of 64 for 5 epochs, as in a public example that learnt nothing."""
    (message,) = warnings_before_start(215, 64, 20, "pretrain")
    assert "only 20 updates" in message
    assert "215 images, batch 64" in message
    assert warnings_before_start(1000, 64, 1500, "pretrain") == []


def test_a_batch_larger_than_the_data_is_named() -> None:
    (message,) = warnings_before_start(100, 128, 500, "pretrain")
    assert "batch (128) is larger than the data (100 images)" in message
    assert "negatives" in message


def test_a_batch_larger_than_the_data_is_another_matter_in_finetuning() -> None:
    (message,) = warnings_before_start(100, 128, 500, "finetune")
    assert "batch (128) is larger than the data (100 images): it repeats images" in message
    assert "negatives" not in message


def test_nan_names_the_metric_the_step_and_what_is_kept() -> None:
    metrics = {"contrast_loss": np.array([1.0, math.nan, 2.0])}
    with pytest.raises(DivergedError, match=r"contrast_loss is nan at step 8.*ckpt-6 is kept"):
        check_metrics(metrics, 7, "ckpt-6")
    check_metrics({"contrast_loss": np.array([1.0])}, 1, "")


def test_a_loss_out_of_all_bounds_has_diverged_although_it_is_a_number() -> None:
    metrics = {"total_loss": np.array([2.0, 7e9]), "learning_rate": np.array([1e6, 1e6])}
    with pytest.raises(DivergedError, match=r"total_loss is 7e\+09 at step 2, finite but out of "):
        check_metrics(metrics, 1, "", {"total_loss": 2.0, "learning_rate": 1.0})
    large = {"total_loss": np.array([5e6])}
    check_metrics(large, 1, "", {"total_loss": 1e6})  # a method whose losses are large
    check_metrics(large, 1, "")


def test_an_error_that_is_no_number_ends_a_validation_and_an_undefined_score_does_not() -> None:
    check_scores({"validation/loss": 0.5, "validation/roc_auc": math.nan, "step": 3})
    for name in ("validation/loss", "validation/rmse"):
        with pytest.raises(DivergedError, match=f"{name} is nan"):
            check_scores({name: math.nan})


def watch(features: np.ndarray) -> HealthWatch:
    return HealthWatch(nt_xent_at_chance(512), lambda: features, total_steps=1000)


RICH = np.random.default_rng(0).normal(size=(64, 32))


def test_a_loss_at_chance_is_said_after_a_tenth_of_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The run that sat at 13.86 for 728 epochs, told after a tenth of it."""
    health = watch(RICH)
    health.on_epoch_end(0, {"step": 50, "contrast_loss": 13.86})
    assert health.messages == [], "too early to tell"
    with caplog.at_level(logging.WARNING):
        health.on_epoch_end(1, {"step": 150, "contrast_loss": 13.86})
    assert "13.860 is at chance (13.861 for this batch)" in caplog.text
    health.on_epoch_end(2, {"step": 200, "contrast_loss": 12.0})
    assert len(health.messages) == 1


def test_the_same_is_not_said_again_before_another_tenth_of_the_run() -> None:
    """Epochs of a few images are a step or two long."""
    sign = HealthCheck("spread", "below", 0.1, "it collapses")
    health = HealthWatch(nt_xent_at_chance(512), lambda: RICH, 2000, [sign])
    for step in range(2, 2001, 2):
        health.on_epoch_end(0, {"step": step, "contrast_loss": 13.86, "spread": 0.01})
    for kind in ("is at chance", "it collapses"):
        said = [int(m.split()[1].rstrip(":")) for m in health.messages if kind in m]
        assert said == list(range(200, 2001, 200))


def test_collapsed_features_are_said_with_their_rank() -> None:
    health = watch(np.outer(np.random.default_rng(0).normal(size=64), np.ones(32)) + 1e-4 * RICH)
    logs = {"step": 150, "contrast_loss": 10.0}
    health.on_epoch_end(0, logs)
    assert logs["effective_rank"] < 2
    assert "they collapse" in health.messages[0]
    healthy = {"step": 150, "contrast_loss": 10.0}
    health = watch(RICH)
    health.on_epoch_end(0, healthy)
    assert healthy["effective_rank"] > 20
    assert health.messages == []


def test_a_short_run_hears_of_chance_at_its_end() -> None:
    """60 steps are fewer than any patience; a warning that comes never is none."""
    health = HealthWatch(nt_xent_at_chance(512), lambda: RICH, total_steps=60)
    for step in (20, 40, 60):
        health.on_epoch_end(0, {"step": step, "contrast_loss": 13.86})
    assert [m.split(":")[0] for m in health.messages] == ["step 60"]


def test_chance_at_the_last_step_is_said_whenever_it_was_said_before() -> None:
    """So that the last warning tells the state that the run ended in."""
    health = watch(RICH)
    for step in (950, 1000):
        health.on_epoch_end(0, {"step": step, "contrast_loss": 13.86})
    assert [m.split(":")[0] for m in health.messages] == ["step 950", "step 1000"]


def neighbors(value: float, half: float = 0.08) -> dict[str, float]:
    name = "validation/knn_accuracy"
    return {name: value, f"{name}_low": value - half, f"{name}_high": value + half}


def test_k_nn_that_never_rises_above_the_untrained_network_is_said() -> None:
    """A run whose loss fell from 10.1 to 5.7 while k-NN went from 0.708 to 0.692."""
    health = HealthWatch(nt_xent_at_chance(128), lambda: RICH, 900, (), neighbors(0.7))
    for step in range(60, 901, 60):
        health.on_epoch_end(0, {"step": step, "contrast_loss": 6.0, **neighbors(0.692)})
    assert health.messages
    assert all("nothing useful" in m and "before training (0.700)" in m for m in health.messages)
    assert "0.692 [0.612, 0.772]" in health.messages[0]
    steps = [int(m.split()[1].rstrip(":")) for m in health.messages]
    assert steps[0] >= 225, "a quarter of the run is given to it"
    assert steps[-1] == 900


def test_k_nn_above_the_untrained_network_or_unmeasured_is_not_warned_of() -> None:
    health = HealthWatch(0, lambda: RICH, 900, (), neighbors(0.7))
    health.on_epoch_end(0, {"step": 900, **neighbors(0.8)})
    health.on_epoch_end(0, {"step": 900})
    unmeasured = HealthWatch(0, lambda: RICH, 900)
    unmeasured.on_epoch_end(0, {"step": 900, **neighbors(0.1)})
    assert health.messages == unmeasured.messages == []


@pytest.mark.parametrize(("kind", "bad", "good"), [("below", 0.01, 0.5), ("above", 0.5, 0.01)])
def test_a_methods_own_bad_sign_is_said_with_its_value(kind: str, bad: float, good: float) -> None:
    sign = HealthCheck("spread", kind, 0.1, "it collapses")  # type: ignore[arg-type]
    health = HealthWatch(0, lambda: RICH, 1000, [sign])
    for step, value in ((50, bad), (150, good), (160, math.nan)):  # too early, healthy, unknown
        health.on_epoch_end(0, {"step": step, "spread": value})
    health.on_epoch_end(0, {"step": 170})  # not measured
    assert health.messages == []
    health.on_epoch_end(0, {"step": 200, "spread": bad})
    assert health.messages == [f"step 200: spread is {bad:.3f}: it collapses"]
