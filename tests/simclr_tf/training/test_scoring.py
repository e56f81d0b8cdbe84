from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from simclr_tf.training.evaluator import ImageOutputs
from simclr_tf.training.scoring import score_features, score_logits, write_predictions


def outputs(n: int, classes: int, seed: int, unlabeled: int = 0) -> ImageOutputs:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, n)
    features = rng.normal(size=(n, 5)).astype(np.float32) + label[:, None]
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    label[:unlabeled] = -1
    return ImageOutputs(np.arange(n), label, features, logits)


def test_logits_are_scored_as_scikit_learn_does() -> None:
    held_out = outputs(200, 8, seed=0, unlabeled=20)
    scores = score_logits(held_out, "test")
    label, logits = held_out.label[20:], held_out.logits[20:]  # type: ignore[index]
    assert scores["test/label_top_1_accuracy"] == np.mean(logits.argmax(1) == label)
    assert scores["test/label_top_5_accuracy"] == top_k_accuracy_score(label, logits, k=5)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert scores["test/supervised_loss"] == pytest.approx(log_loss(label, probabilities))


def test_a_perfect_score_on_few_images_is_not_certain() -> None:
    label = np.arange(12) % 3
    perfect = ImageOutputs(
        np.arange(12), label, np.eye(3, dtype=np.float32)[label], np.eye(3)[label]
    )
    scores = score_logits(perfect, "test") | score_features(perfect, perfect, "test", 1, True)
    for name in ("label_top_1", "knn", "linear_probe"):
        assert scores[f"test/{name}_accuracy"] == scores[f"test/{name}_accuracy_high"] == 1
        assert scores[f"test/{name}_accuracy_low"] == pytest.approx(0.7575, abs=1e-4)


def test_without_labels_nothing_is_scored() -> None:
    nothing = outputs(10, 3, seed=0, unlabeled=10)
    assert score_logits(nothing, "test") == {}
    assert score_features(nothing, nothing, "test", 10, True) == {}


def test_neighbors_are_found_as_scikit_learn_finds_them() -> None:
    train, held_out = outputs(150, 4, seed=1, unlabeled=30), outputs(60, 4, seed=2)
    scores = score_features(train, held_out, "validation", 5, linear_probe=False)
    knn = KNeighborsClassifier(5, metric="cosine").fit(train.features[30:], train.label[30:])
    expected = np.mean(knn.predict(held_out.features) == held_out.label)
    assert scores["validation/knn_accuracy"] == pytest.approx(expected, abs=0.02)
    assert "validation/linear_probe_accuracy" not in scores


def test_predictions_hold_every_score(tmp_path: Path) -> None:
    held_out = outputs(4, 2, seed=3, unlabeled=1)
    write_predictions(tmp_path / "p.csv", held_out, ("a", "b"), None)
    rows = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()]
    assert rows[0] == ["path", "true", "predicted", "score_a", "score_b"]
    assert rows[1][1] == ""
    for row, logits in zip(rows[1:], held_out.logits, strict=True):  # type: ignore[arg-type]
        assert row[2] == "ab"[int(logits.argmax())]
        assert float(row[3]) == pytest.approx(1 / (1 + np.exp(logits[1] - logits[0])), abs=1e-6)
