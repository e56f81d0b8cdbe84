import numpy as np
import pytest

from simclr_tf.evaluation.curves import calibration_curve, precision_recall_curve, roc_curve
from simclr_tf.evaluation.metrics import expected_calibration_error


def scores(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(60) < 0.4
    return positive, np.round(0.3 * positive + 0.7 * rng.random(60), 1)


def test_roc_points_are_the_rates_at_their_thresholds() -> None:
    positive, score = scores()
    curve = roc_curve(positive, score)
    assert curve is not None
    for fpr, tpr, threshold in zip(
        curve.false_positive_rate, curve.true_positive_rate, curve.threshold, strict=True
    ):
        taken = score >= threshold
        assert fpr == pytest.approx((taken & ~positive).sum() / (~positive).sum())
        assert tpr == pytest.approx((taken & positive).sum() / positive.sum())


def test_precision_and_recall_are_those_at_their_thresholds() -> None:
    positive, score = scores(1)
    curve = precision_recall_curve(positive, score)
    assert curve is not None
    assert curve.threshold[-1] == np.inf
    points = zip(curve.precision[:-1], curve.recall[:-1], curve.threshold[:-1], strict=True)
    for precision, recall, threshold in points:
        taken = score >= threshold
        assert precision == pytest.approx((taken & positive).sum() / taken.sum())
        assert recall == pytest.approx((taken & positive).sum() / positive.sum())


def test_curves_of_a_class_that_never_or_always_occurs() -> None:
    score = np.linspace(0, 1, 5)
    assert roc_curve(np.zeros(5, bool), score) is None
    assert roc_curve(np.ones(5, bool), score) is None
    assert precision_recall_curve(np.zeros(5, bool), score) is None


def test_calibration_bins_add_up_to_the_calibration_error() -> None:
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(3), 200)
    labels = rng.integers(0, 3, 200)
    curve = calibration_curve(labels, p)
    assert curve.images.sum() == 200
    assert curve.right.sum() == (p.argmax(axis=1) == labels).sum()
    assert ((curve.low < curve.confidence) & (curve.confidence <= curve.high)).all()
    gaps = np.abs(curve.right - curve.images * curve.confidence)
    assert gaps.sum() / 200 == pytest.approx(expected_calibration_error(labels, p))
