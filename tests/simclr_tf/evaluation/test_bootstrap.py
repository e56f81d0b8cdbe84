import time

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_tf.evaluation.bootstrap import bootstrap_metrics, metric_samples
from simclr_tf.evaluation.intervals import bootstrap_interval, draw_counts, percentile_interval
from simclr_tf.evaluation.metrics import accuracy, class_metrics, classification_metrics

Predictions = tuple[np.ndarray, np.ndarray, np.ndarray]


def predictions(seed: int, n: int, classes: int, digits: int = 9) -> Predictions:
    """Labels, probabilities and decisions; few digits give many ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    p = rng.dirichlet(np.ones(classes), n) + 0.3 * np.eye(classes)[labels]
    p = np.round(p / p.sum(axis=1, keepdims=True), digits)
    p /= p.sum(axis=1, keepdims=True)
    return labels, p, rng.integers(0, classes, n) if seed % 2 else p.argmax(axis=1)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 25), st.integers(2, 4), st.integers(1, 9), st.booleans()
)
def test_samples_are_what_scikit_learn_says_of_the_drawn_images(
    seed: int, n: int, classes: int, digits: int, grouped: bool
) -> None:
    labels, p, predicted = predictions(seed, n, classes, digits)
    groups = np.arange(n) // 3 if grouped else None
    found = metric_samples(labels, p, predicted, groups=groups, resamples=6, seed=seed)
    counts = np.concatenate(list(draw_counts(n, 6, seed, groups=groups, labels=labels)))
    for b, count in enumerate(counts):
        rows = np.repeat(np.arange(n), count)
        drawn = labels[rows], p[rows], predicted[rows]
        overall = {name: values[b] for name, values in found.overall.items()}
        assert overall == pytest.approx(classification_metrics(*drawn), abs=1e-9, nan_ok=True)
        for name, values in class_metrics(*drawn).items():
            np.testing.assert_allclose(found.per_class[name][b], values, atol=1e-9, err_msg=name)


def test_weighted_by_counts_means_drawn_so_often() -> None:
    labels, p, predicted = predictions(2, 60, 3)
    found = metric_samples(labels, p, predicted, resamples=4)
    (counts,) = draw_counts(60, 4, 0, labels=labels)
    for b, weight in enumerate(counts):
        assert found.per_class["roc_auc"][b, 1] == pytest.approx(
            sk.roc_auc_score(labels == 1, p[:, 1], sample_weight=weight)
        )
        assert found.overall["matthews_correlation"][b] == pytest.approx(
            sk.matthews_corrcoef(labels, predicted, sample_weight=weight)
        )


def test_values_are_those_of_the_data_and_lie_inside_their_intervals() -> None:
    labels, p, predicted = predictions(4, 300, 4)
    found = bootstrap_metrics(labels, p, predicted, resamples=300)
    values = {name: interval.value for name, interval in found.overall.items()}
    assert values == classification_metrics(labels, p, predicted)
    for interval in found.overall.values():
        assert interval.low <= interval.value <= interval.high
    assert found.overall["accuracy"].high - found.overall["accuracy"].low > 0.05
    again = bootstrap_metrics(labels, p, predicted, resamples=300)
    assert again == found


def test_intervals_agree_with_the_general_bootstrap() -> None:
    labels, p, predicted = predictions(6, 400, 2)
    fast = bootstrap_metrics(labels, p, predicted).overall["accuracy"]
    slow = bootstrap_interval(accuracy, labels, predicted)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.01)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [90, 60])
    truth, hits = 0.6 * 0.9 + 0.4 * 0.6, 0
    for trial in range(200):
        right = rng.random(150) < np.where(labels == 0, 0.9, 0.6)
        predicted = np.where(right, labels, 1 - labels)
        samples = metric_samples(labels, np.eye(2)[predicted], predicted, resamples=200, seed=trial)
        interval = percentile_interval(right.mean(), samples.overall["accuracy"])
        hits += interval.low <= truth <= interval.high
    assert 0.90 <= hits / 200 <= 0.99


def test_groups_that_stand_or_fall_together_widen_the_intervals() -> None:
    labels = np.zeros(400, int)
    labels[::2] = 1
    right = np.repeat(np.arange(20) < 15, 20)
    predicted = np.where(right, labels, 1 - labels)
    p = np.eye(2)[predicted]
    alone = bootstrap_metrics(labels, p, predicted).overall["roc_auc"]
    grouped = bootstrap_metrics(labels, p, predicted, groups=np.arange(400) // 20)
    wide = grouped.overall["roc_auc"]
    assert (wide.high - wide.low) / (alone.high - alone.low) == pytest.approx(20**0.5, rel=0.3)


def test_the_same_images_and_seed_pair_two_models() -> None:
    labels, p, _ = predictions(8, 200, 3)
    better = 0.8 * p + 0.2 * np.eye(3)[labels]
    a = metric_samples(labels, better, better.argmax(axis=1), resamples=300).overall["log_loss"]
    b = metric_samples(labels, p, p.argmax(axis=1), resamples=300).overall["log_loss"]
    assert (a < b).all()
    assert (b - a).std() < np.hypot(a.std(), b.std())


def test_without_resamples_there_are_values_alone() -> None:
    labels, p, predicted = predictions(1, 40, 3)
    found = bootstrap_metrics(labels, p, predicted, resamples=0)
    assert found.overall["accuracy"].value == accuracy(labels, predicted)
    assert np.isnan(found.overall["accuracy"].low)
    assert np.isnan(found.per_class["recall"][0].high)


@pytest.mark.slow
def test_two_thousand_resamples_of_ten_thousand_images_take_seconds() -> None:
    labels, p, predicted = predictions(0, 10_000, 13)
    start = time.process_time()
    bootstrap_metrics(labels, p, predicted)
    assert time.process_time() - start < 20
