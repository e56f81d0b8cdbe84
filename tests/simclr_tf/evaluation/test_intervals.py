import numpy as np
import pytest
from scipy.stats import binomtest

from simclr_tf.evaluation.intervals import (
    Interval,
    bootstrap_interval,
    crossed_difference,
    crossed_interval,
    paired_difference,
    wilson_interval,
)
from simclr_tf.evaluation.metrics import roc_auc


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    return float((labels == predicted).mean())


def answers(correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions of two classes, right where `correct`."""
    labels = np.arange(len(correct)) % 2
    return labels, np.where(correct, labels, 1 - labels)


def test_interval_of_an_accuracy_is_the_binomial_one() -> None:
    labels, predicted = answers(np.arange(400) < 300)
    interval = bootstrap_interval(accuracy, labels, predicted)
    half = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert interval.value == 0.75
    assert interval.low == pytest.approx(0.75 - half, abs=0.006)
    assert interval.high == pytest.approx(0.75 + half, abs=0.006)
    assert bootstrap_interval(accuracy, labels, predicted) == interval


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        labels, predicted = answers(rng.random(150) < 0.7)
        interval = bootstrap_interval(accuracy, labels, predicted, resamples=200, seed=trial)
        hits += interval.low <= 0.7 <= interval.high
    assert 0.89 <= hits / 200 <= 0.99


def test_groups_are_resampled_whole() -> None:
    groups = np.repeat(np.arange(20), 20)
    correct = np.repeat(np.arange(20) < 15, 20)  # images of a group are all right or all wrong
    labels, predicted = answers(correct)
    alone = bootstrap_interval(accuracy, labels, predicted)
    grouped = bootstrap_interval(accuracy, labels, predicted, groups=groups)
    assert grouped.value == alone.value
    ratio = (grouped.high - grouped.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(20**0.5, rel=0.25)


def test_pairing_narrows_the_difference() -> None:
    rng = np.random.default_rng(1)
    correct = rng.random(300) < 0.6
    better = correct | (rng.random(300) < 0.1)
    labels, a = answers(better)
    _, b = answers(correct)
    difference = paired_difference(accuracy, labels, a, b)
    assert difference.value == pytest.approx(better.mean() - correct.mean())
    assert difference.low > 0
    assert difference.p_value < 0.01
    apart = bootstrap_interval(accuracy, labels, a)
    assert difference.high - difference.low < apart.high - apart.low
    same = paired_difference(accuracy, labels, a, a)
    assert (same.value, same.p_value) == (0, 1)
    # 300 answers without one that differs: Wilson's upper end.
    assert same.high == -same.low == pytest.approx(1.96**2 / (300 + 1.96**2), rel=1e-3)


def test_metrics_undefined_in_some_resamples() -> None:
    labels = np.array([0] * 12 + [1])
    scores = np.stack([1 - labels, labels], axis=1) * 0.5 + 0.25
    interval = bootstrap_interval(roc_auc, labels, scores, resamples=100)
    assert (interval.value, interval.high) == (1, 1)
    assert interval.low == pytest.approx(13 / (13 + 1.96**2), rel=1e-3)  # Wilson's


def crossed_width(values: np.ndarray) -> float:
    interval = crossed_interval(values)
    assert interval.value == pytest.approx(values.mean())
    return interval.high - interval.low


def test_crossed_interval_counts_images_that_repetitions_share_once() -> None:
    same_images = np.tile(np.random.default_rng(2).random(500) < 0.7, (5, 1))
    binomial = 2 * 1.96 * (0.7 * 0.3 / 500) ** 0.5
    assert crossed_width(same_images) == pytest.approx(binomial, rel=0.15)


def test_crossed_interval_counts_repetitions() -> None:
    repetitions = np.repeat(np.random.default_rng(2).normal(0.7, 0.05, (25, 1)), 500, axis=1)
    expected = 2 * 1.96 * repetitions[:, 0].std() / 25**0.5
    assert crossed_width(repetitions) == pytest.approx(expected, rel=0.1)


@pytest.mark.slow
def test_crossed_interval_is_on_the_safe_side_for_independent_values() -> None:
    # Owen 2007, The pigeonhole bootstrap: three times the variance where nothing is shared.
    widths = [crossed_width(np.random.default_rng(s).random((5, 500)) < 0.7) for s in range(20)]
    expected = 2 * 1.96 * (3 * 0.7 * 0.3 / 2500) ** 0.5
    assert np.mean(widths) == pytest.approx(expected, rel=0.15)


def test_crossed_difference_pairs_and_broadcasts() -> None:
    rng = np.random.default_rng(3)
    a = rng.random((5, 400)) < 0.8
    b = rng.random((1, 400)) < 0.5
    difference = crossed_difference(a, b)
    assert difference.value == pytest.approx(a.mean() - b.mean())
    assert 0.2 < difference.low < difference.value < difference.high < 0.4
    assert difference.p_value < 0.005


@pytest.mark.parametrize(("hits", "n"), [(12, 12), (0, 12), (1, 1), (7, 12), (300, 400)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_interval_is_that_of_scipy(hits: int, n: int, level: float) -> None:
    interval = wilson_interval(np.arange(n) < hits, level)
    expected = binomtest(hits, n).proportion_ci(level, method="wilson")
    assert interval.value == hits / n
    assert interval.level == level
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.low < interval.high


def test_written_out() -> None:
    assert f"{Interval(0.74, 0.701, 0.776):.2f}" == "0.74 [0.70, 0.78]"
    assert f"{Interval(0.74, 0.701, 0.776)}" == "0.740 [0.701, 0.776]"
