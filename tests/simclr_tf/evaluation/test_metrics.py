import math

import numpy as np
import pytest
import sklearn.metrics as sk

from simclr_tf.evaluation.metrics import (
    DECISION_METRICS,
    METRIC_NAMES,
    average_precision,
    balanced_accuracy,
    class_metrics,
    classification_metrics,
    confusion_matrix,
    effective_rank,
    expected_calibration_error,
    f1_scores,
    log_loss,
    macro_f1,
    roc_auc,
)


def predictions(seed: int, n: int = 200, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = 1.5 * np.eye(classes)[labels] + rng.normal(size=(n, classes))
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_are_those_of_scikit_learn(classes: int) -> None:
    labels, p = predictions(0, classes=classes)
    hard = p.argmax(axis=1)
    found = classification_metrics(labels, p)
    assert tuple(found) == METRIC_NAMES
    del found["expected_calibration_error"]
    assert found == pytest.approx(
        {
            "accuracy": sk.accuracy_score(labels, hard),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, hard),
            "macro_f1": sk.f1_score(labels, hard, average="macro"),
            "weighted_f1": sk.f1_score(labels, hard, average="weighted"),
            "cohen_kappa": sk.cohen_kappa_score(labels, hard),
            "matthews_correlation": sk.matthews_corrcoef(labels, hard),
            "roc_auc": sk.roc_auc_score(labels, p[:, 1])
            if classes == 2
            else sk.roc_auc_score(labels, p, multi_class="ovr", average="macro"),
            "average_precision": sk.average_precision_score(
                np.eye(classes)[labels], p, average="macro"
            ),
            "log_loss": sk.log_loss(labels, p),
        },
        abs=1e-14,
    )
    np.testing.assert_array_equal(
        confusion_matrix(labels, hard, classes), sk.confusion_matrix(labels, hard)
    )


def test_metrics_of_decisions_follow_the_decisions_not_the_highest_score() -> None:
    labels, p = predictions(1, classes=2)
    decided = (p[:, 1] >= 0.8).astype(int)
    found = classification_metrics(labels, p, decided)
    assert found["accuracy"] == sk.accuracy_score(labels, decided)
    assert found["accuracy"] != classification_metrics(labels, p)["accuracy"]
    assert found["roc_auc"] == classification_metrics(labels, p)["roc_auc"]


def test_per_class_metrics_are_those_of_a_loop_over_one_against_the_rest() -> None:
    labels, p = predictions(2)
    hard = p.argmax(axis=1)
    found = class_metrics(labels, p, hard)
    for k in range(5):
        true, given = labels == k, hard == k
        precision, recall = (true & given).sum() / given.sum(), (true & given).sum() / true.sum()
        above = p[true, k][:, None] > p[~true, k][None]
        expected = {
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall),
            "roc_auc": above.mean(),
            "average_precision": sk.average_precision_score(true, p[:, k]),
        }
        assert {name: values[k] for name, values in found.items()} == pytest.approx(expected)


def test_classes_that_neither_occur_nor_are_predicted_count_in_no_mean() -> None:
    labels, p = predictions(1)
    padded = np.concatenate([p, np.zeros((len(p), 1))], axis=1)
    assert classification_metrics(labels, padded) == pytest.approx(
        classification_metrics(labels, p), nan_ok=True
    )
    assert math.isnan(f1_scores(labels, p.argmax(axis=1), 6)[5])
    assert math.isnan(class_metrics(labels, padded, p.argmax(axis=1))["roc_auc"][5])


def test_a_class_that_is_predicted_but_absent_lowers_macro_f1_alone() -> None:
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    assert balanced_accuracy(labels, predicted) == 0.75
    assert macro_f1(labels, predicted) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_f1_is_of_the_whole_set_not_a_mean_over_batches() -> None:
    labels, p = predictions(0)
    hard = p.argmax(axis=1)
    halves = [macro_f1(labels[s], hard[s]) for s in (slice(0, 100), slice(100, 200))]
    assert macro_f1(labels, hard) != pytest.approx(np.mean(halves), abs=1e-6)


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


def test_areas_come_from_scores_not_from_decisions() -> None:
    labels, p = predictions(1)
    hard = np.eye(5)[p.argmax(axis=1)]
    assert roc_auc(labels, p) > roc_auc(labels, hard) + 0.02
    assert average_precision(labels, p) > average_precision(labels, hard) + 0.02


def test_areas_are_undefined_where_one_class_is_all_there_is() -> None:
    p = np.tile([0.7, 0.3], (5, 1))
    assert math.isnan(roc_auc(np.zeros(5, int), p))
    assert average_precision(np.zeros(5, int), p) == 1
    assert log_loss(np.zeros(5, int), p) == pytest.approx(-math.log(0.7))


def test_degenerate_predictions_have_defined_metrics() -> None:
    labels = np.array([0, 0, 1])
    always_zero = np.tile([1.0, 0.0], (3, 1))
    found = classification_metrics(labels, always_zero)
    assert found["matthews_correlation"] == 0
    assert found["cohen_kappa"] == 0
    assert found["balanced_accuracy"] == 0.5
    assert np.isfinite(found["log_loss"])
    one = classification_metrics(np.zeros(3, int), always_zero)
    assert (one["accuracy"], one["cohen_kappa"], one["matthews_correlation"]) == (1, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_trace_of_the_confusion_matrix_over_its_sum_is_the_accuracy_exactly(seed: int) -> None:
    labels, p = predictions(seed, n=197 + seed, classes=7)
    matrix = confusion_matrix(labels, p.argmax(axis=1), 7)
    assert np.trace(matrix) / matrix.sum() == DECISION_METRICS["accuracy"](labels, p.argmax(axis=1))


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
    with pytest.raises(ValueError, match=r"metrics need|has no column|must sum to 1"):
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
