"""Floors under a classifier, against scikit-learn and plain numbers."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from simclr_tf.evaluation.floors import (
    MAJORITY,
    RAW_PIXELS,
    UNTRAINED,
    judge,
    majority,
    probe_scores,
)

LABELS = np.arange(200) % 2


def said(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and classes that are right where told."""
    predicted = np.where(right, LABELS, 1 - LABELS)
    return np.where(predicted[:, np.newaxis] == np.arange(2), 0.8, 0.2), predicted


def test_the_majority_is_that_of_the_training_images() -> None:
    scores = majority(np.array([2, 2, 1, -1, -1, 2]), 4, 5)
    np.testing.assert_allclose(scores, np.tile([1 / 8, 2 / 8, 4 / 8, 1 / 8], (5, 1)))


def test_a_probe_is_a_standardized_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)) * [1, 10, 100, 1e-3, 1] + 3
    y = (x[:, 0] + 0.1 * x[:, 1] + rng.normal(size=300) > 6).astype(np.int64)
    own = probe_scores(x[:200], y[:200], x[200:], 2)
    assert own is not None
    scaler = StandardScaler().fit(x[:200])
    best = min(
        np.abs(
            LogisticRegression(C=c, max_iter=1000)
            .fit(scaler.transform(x[:200]), y[:200])
            .predict_proba(scaler.transform(x[200:]))
            - own
        ).max()
        for c in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    )
    assert best < 1e-3


def test_what_cannot_be_fitted_is_left_out() -> None:
    x = np.ones((4, 2))
    assert probe_scores(x, np.zeros(4, np.int64), x, 2) is None
    assert probe_scores(x * np.nan, np.array([0, 1, 0, 1]), x, 2) is None


def test_a_network_below_a_floor_is_said_to_be_not_above_it() -> None:
    network, floor = np.arange(200) % 10 < 7, np.arange(200) % 10 < 8
    floors = {MAJORITY: np.tile([0.5, 0.5], (200, 1)), RAW_PIXELS: said(floor)[0]}
    scores, predicted = said(network)
    verdict = judge("test", LABELS, scores, predicted, floors, resamples=500)
    assert not verdict.above
    assert verdict.nearest.name == RAW_PIXELS
    assert verdict.nearest.difference.value == pytest.approx(-0.1)
    assert verdict.sentence().startswith(
        "Not above logistic regression on 16 x 16 pixels (accuracy 0.70 against 0.80 on 200 test"
        " images, difference -10 points [-14, "
    )


def test_a_network_above_all_floors_is_said_to_be() -> None:
    scores, predicted = said(np.arange(200) % 10 < 9)
    floors = {
        MAJORITY: np.tile([0.5, 0.5], (200, 1)),
        RAW_PIXELS: said(np.arange(200) % 10 < 6)[0],
        UNTRAINED: said(np.arange(200) % 10 < 7)[0],
    }
    verdict = judge("test", LABELS, scores, predicted, floors, resamples=500)
    assert verdict.above
    text = verdict.sentence()
    assert text.startswith("Above always saying the most frequent class (0.50), logistic")
    assert "+20 points [" in text
    facts = verdict.to_json()
    assert facts["above"]
    assert [floor["name"] for floor in facts["floors"]] == list(floors)
    assert facts["sentence"] == text


def test_a_predictor_of_one_class_is_not_above_the_majority() -> None:
    scores = np.tile([0.3, 0.7], (200, 1))
    floors = {MAJORITY: majority(LABELS, 2, 200)}
    verdict = judge("test", LABELS, scores, np.ones(200, np.int64), floors, resamples=100)
    assert not verdict.above
    assert verdict.network.low < 0.5 < verdict.network.high
