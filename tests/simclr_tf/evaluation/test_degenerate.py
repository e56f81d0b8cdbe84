"""Intervals where resampling shows no spread: they are never of zero width."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from simclr_tf.evaluation.bootstrap import bootstrap_metrics
from simclr_tf.evaluation.degenerate import auc_ends, jaccard_ends, wilson_ends
from simclr_tf.evaluation.intervals import (
    bootstrap_interval,
    crossed_difference,
    crossed_interval,
    paired_difference,
)
from simclr_tf.evaluation.metrics import METRIC_NAMES, accuracy

LOSSES = {"log_loss", "expected_calibration_error"}
BOUNDS = dict.fromkeys(METRIC_NAMES, (0.0, 1.0)) | {
    "cohen_kappa": (-1.0, 1.0),
    "matthews_correlation": (-1.0, 1.0),
    "log_loss": (0.0, math.inf),
}


def one_class(n: int, classes: int, said: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = np.arange(n) % classes
    scores = np.full((n, classes), 0.5 / (classes - 1))
    scores[:, said] = 0.5
    return labels, scores, np.full(n, said)


def test_a_predictor_of_one_class_has_intervals_of_some_width() -> None:
    labels, scores, predicted = one_class(60, 4)
    found = bootstrap_metrics(labels, scores, predicted, resamples=200)
    for name, interval in found.overall.items():
        assert interval.low <= interval.value <= interval.high, name
        assert interval.high > interval.low, name
    exact = binomtest(15, 60).proportion_ci(method="wilson")
    assert (found.overall["accuracy"].low, found.overall["accuracy"].high) == pytest.approx(
        (exact.low, exact.high)
    )
    assert found.overall["balanced_accuracy"].value == 0.25
    assert found.overall["roc_auc"].low < 0.5 < found.overall["roc_auc"].high


def test_perfect_answers_have_intervals_that_shrink_with_their_number() -> None:
    widths = []
    for n in (20, 200, 2000):
        labels = np.arange(n) % 2
        scores = np.where(labels[:, np.newaxis] == np.arange(2), 0.9, 0.1)
        found = bootstrap_metrics(labels, scores, labels, resamples=100)
        widths.append([found.overall[m].high - found.overall[m].low
                       for m in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc",
                                 "average_precision", "cohen_kappa")])  # fmt: skip
        assert all(found.overall[m].value == 1 for m in ("accuracy", "roc_auc"))
    first, second, third = np.array(widths)
    assert (first > second).all()
    assert (second > third).all()
    assert (third > 0).all()


def test_intervals_with_spread_stay_those_of_the_bootstrap() -> None:
    """Numbers of version 0.1.0."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 90)
    scores = rng.dirichlet(np.ones(3), 90) + (labels[:, np.newaxis] == np.arange(3)) * 0.4
    scores /= scores.sum(axis=1, keepdims=True)
    found = bootstrap_metrics(labels, scores, scores.argmax(axis=1), resamples=500, seed=1)
    told = {n: (found.overall[n].low, found.overall[n].high) for n in ("accuracy", "roc_auc")}
    assert told["accuracy"] == pytest.approx(GOLDEN["accuracy"], abs=1e-12)
    assert told["roc_auc"] == pytest.approx(GOLDEN["roc_auc"], abs=1e-12)


GOLDEN = {
    "accuracy": (0.5555555555555556, 0.7444444444444445),
    "roc_auc": (0.8194412587663861, 0.9128205188078914),
}


def test_whole_groups_count_as_one_answer_each() -> None:
    labels = np.repeat([0, 1], 50)
    scores = np.where(labels[:, np.newaxis] == np.arange(2), 0.9, 0.1)
    groups = np.repeat(np.arange(10), 10)
    alone = bootstrap_metrics(labels, scores, labels, resamples=50).overall
    grouped = bootstrap_metrics(labels, scores, labels, groups=groups, resamples=50).overall
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"):
        assert grouped[name].low < alone[name].low - 0.05, name
    exact = binomtest(10, 10).proportion_ci(method="wilson")
    assert grouped["accuracy"].low == pytest.approx(exact.low)


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(1, 25),
    classes=st.integers(2, 4),
    kind=st.sampled_from(["random", "one", "right", "wrong", "flat"]),
    grouped=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_no_interval_is_of_zero_width(
    n: int, classes: int, kind: str, grouped: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    scores = rng.dirichlet(np.ones(classes), n)
    if kind in ("right", "wrong"):
        shown = (labels + (kind == "wrong")) % classes
        scores = 0.1 * scores + 0.9 * (shown[:, np.newaxis] == np.arange(classes))
    elif kind == "one":
        scores = np.tile(scores[:1], (n, 1))
    elif kind == "flat":
        scores = np.full((n, classes), 1 / classes)
    scores /= scores.sum(axis=1, keepdims=True)
    groups = rng.integers(0, 3, n) if grouped else None
    found = bootstrap_metrics(labels, scores, scores.argmax(1), groups=groups, resamples=60)
    each = [(name, i) for name, i in found.overall.items()]
    each += [(f"class {name}", i) for name, own in found.per_class.items() for i in own]
    for name, interval in each:
        if math.isnan(interval.value):
            continue
        low, high = BOUNDS.get(name, (0.0, 1.0))
        assert interval.high > interval.low, (name, interval)
        assert interval.low <= interval.value <= interval.high, (name, interval)
        assert low - 1e-12 <= interval.low < interval.high <= high + 1e-12, (name, interval)


def test_the_interval_of_accuracy_covers_the_truth_of_nearly_perfect_classifiers() -> None:
    """Most samples of so good a classifier hold no mistake, so resampling shows nothing."""
    rng = np.random.default_rng(0)
    truth, trials = 0.985, 150
    hits = dict.fromkeys(("accuracy", "balanced_accuracy"), 0)
    labels = np.arange(40) % 2
    for _ in range(trials):
        predicted = np.where(rng.random(40) < truth, labels, 1 - labels)
        scores = np.where(predicted[:, np.newaxis] == np.arange(2), 0.9, 0.1)
        found = bootstrap_metrics(labels, scores, predicted, resamples=60).overall
        for name in hits:
            hits[name] += found[name].low <= truth <= found[name].high
    assert all(number / trials > 0.9 for number in hits.values()), hits


def test_the_area_of_separated_scores_covers_the_truth() -> None:
    """Binormal scores three deviations apart: an area of 0.983."""
    rng = np.random.default_rng(1)
    truth, hits, degenerate = 0.98305, 0, 0
    for _ in range(300):
        negative, positive = rng.normal(0, 1, 12), rng.normal(3, 1, 12)
        if negative.max() < positive.min():
            degenerate += 1
            low, high = auc_ends(1.0, 12, 12, 0.95)
            hits += low <= truth <= high
    assert degenerate > 50
    assert hits / degenerate > 0.95


def test_ends_of_single_numbers() -> None:
    exact = binomtest(3, 17).proportion_ci(method="wilson")
    assert wilson_ends(3 / 17, 17, 0.95) == pytest.approx((exact.low, exact.high))
    low, high = jaccard_ends(1.0, 10, 0.95)
    assert (low, high) == (pytest.approx(2 * 0.7225 / 1.7225, abs=2e-3), 1.0)
    low, high = auc_ends(0.5, 20, 20, 0.95)
    assert (0.5 - low) == pytest.approx(high - 0.5)
    assert 0.3 < low < 0.36  # Newcombe (2006)


def test_general_and_crossed_intervals_have_some_width_too() -> None:
    labels = np.arange(30) % 2
    interval = bootstrap_interval(accuracy, labels, labels, resamples=50)
    assert (interval.value, interval.high) == (1, 1)
    assert 0.85 < interval.low < 0.95
    right = np.ones((3, 30))
    assert 0.85 < crossed_interval(right, resamples=50).low < 0.95
    same = crossed_difference(right, right, resamples=50)
    assert (same.value, same.p_value) == (0, 1)
    assert same.low < 0 < same.high
    same = paired_difference(accuracy, labels, labels, labels, resamples=50)
    assert (same.value, same.p_value) == (0, 1)
    assert -0.2 < same.low < 0 < same.high < 0.2
