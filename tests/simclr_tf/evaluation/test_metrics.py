import math

import numpy as np
import pytest
import sklearn.metrics as sk

from simclr_tf.evaluation.metrics import (
    METRICS,
    classification_metrics,
    confusion_matrix,
    effective_rank,
    expected_calibration_error,
    f1_scores,
    roc_auc,
)


def predictions(seed: int, n: int = 200, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = 1.5 * np.eye(classes)[labels] + rng.normal(size=(n, classes))
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 5])
def test_equal_to_sklearn(seed: int, classes: int) -> None:
    labels, p = predictions(seed, classes=classes)
    hard = p.argmax(axis=1)
    expected = {
        "accuracy": sk.accuracy_score(labels, hard),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, hard),
        "macro_f1": sk.f1_score(labels, hard, average="macro"),
        "weighted_f1": sk.f1_score(labels, hard, average="weighted"),
        "cohen_kappa": sk.cohen_kappa_score(labels, hard),
        "matthews_correlation": sk.matthews_corrcoef(labels, hard),
        "roc_auc": sk.roc_auc_score(labels, p[:, 1])
        if classes == 2
        else sk.roc_auc_score(labels, p, multi_class="ovr", average="macro"),
        "log_loss": sk.log_loss(labels, p),
    }
    found = classification_metrics(labels, p)
    assert set(found) == set(METRICS)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
    np.testing.assert_array_equal(
        confusion_matrix(labels, hard, classes), sk.confusion_matrix(labels, hard)
    )
    np.testing.assert_allclose(f1_scores(labels, p), sk.f1_score(labels, hard, average=None))


def test_f1_is_of_the_whole_set_not_a_mean_over_batches() -> None:
    labels, p = predictions(0)
    halves = [METRICS["macro_f1"](labels[s], p[s]) for s in (slice(0, 100), slice(100, 200))]
    assert METRICS["macro_f1"](labels, p) != pytest.approx(np.mean(halves), abs=1e-6)


def test_calibration_error_equals_a_loop() -> None:
    labels, p = predictions(3)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels
    expected = 0.0
    for index in range(15):
        chosen = (confidence > index / 15) & (confidence <= (index + 1) / 15)
        if chosen.any():
            gap = abs(correct[chosen].mean() - confidence[chosen].mean())
            expected += chosen.mean() * gap
    assert expected_calibration_error(labels, p) == pytest.approx(expected)
    certain = np.eye(5)[labels]
    assert expected_calibration_error(labels, certain) == 0
    assert expected_calibration_error((labels + 1) % 5, certain) == 1


def test_auc_comes_from_scores_and_leaves_out_absent_classes() -> None:
    labels, p = predictions(1)
    hard = np.eye(5)[p.argmax(axis=1)]
    assert roc_auc(labels, p) > roc_auc(labels, hard) + 0.02
    padded = np.concatenate([p, np.zeros((len(p), 1))], axis=1)
    assert roc_auc(labels, padded) == pytest.approx(roc_auc(labels, p))
    assert math.isnan(roc_auc(np.zeros(5, int), p[:5]))


def test_degenerate_predictions_have_defined_metrics() -> None:
    labels = np.array([0, 0, 1])
    always_zero = np.tile([1.0, 0.0], (3, 1))
    found = classification_metrics(labels, always_zero)
    assert found["matthews_correlation"] == 0
    assert found["cohen_kappa"] == 0
    assert found["balanced_accuracy"] == 0.5
    assert np.isfinite(found["log_loss"])
    one = classification_metrics(np.zeros(3, int), always_zero)
    assert (one["accuracy"], one["cohen_kappa"]) == (1, 0)


@pytest.mark.parametrize(
    ("labels", "p"),
    [
        (np.zeros(0, int), np.zeros((0, 2))),
        (np.array([2]), np.array([[0.5, 0.5]])),
        (np.array([-1]), np.array([[0.5, 0.5]])),
        (np.array([0]), np.array([[3.0, 4.0]])),
        (np.array([0]), np.array([[0.5, 0.5]] * 2)),
    ],
)
def test_impossible_input_is_refused(labels: np.ndarray, p: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"."):
        classification_metrics(labels, p)


def test_effective_rank_of_known_spectra() -> None:
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(64, 8)))
    basis -= basis.mean(axis=0)
    basis, _ = np.linalg.qr(basis)
    mix, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    for rank in (1, 3, 8):
        spectrum = np.diag([1.0] * rank + [0.0] * (8 - rank))
        features = basis @ spectrum @ mix + 5.0
        assert effective_rank(features) == pytest.approx(rank, rel=1e-6)
    values = np.array([4.0, 2.0, 1.0, 1.0])
    shares = values / values.sum()
    entropy = -(shares * np.log(shares)).sum()
    features = basis[:, :4] @ np.diag(values) @ mix[:4]
    assert effective_rank(features) == pytest.approx(np.exp(entropy))
    assert effective_rank(features * 100) == pytest.approx(np.exp(entropy))


def test_effective_rank_of_collapsed_features_is_one() -> None:
    row = np.random.default_rng(0).normal(size=(1, 16)).astype(np.float32)
    assert effective_rank(np.repeat(row, 50, axis=0)) == 1
    assert effective_rank(np.zeros((50, 16), np.float32)) == 1
    assert effective_rank(np.random.default_rng(1).normal(size=(500, 16))) > 15
