import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from simclr_tf.evaluation import neighbors
from simclr_tf.evaluation.neighbors import knn_predict, knn_scores


def clusters(seed: int, n: int = 300, d: int = 16, classes: int = 5) -> tuple:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.normal(size=(classes, d))[y] + 1.2 * rng.normal(size=(n, d))
    return x[: n // 2], y[: n // 2], x[n // 2 :], y[n // 2 :]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 10, 25])
def test_equals_sklearn(metric: str, k: int) -> None:
    train_x, train_y, test_x, _ = clusters(0)
    model = KNeighborsClassifier(k, metric=metric).fit(train_x, train_y)
    np.testing.assert_allclose(
        knn_scores(train_x, train_y, test_x, k=k, metric=metric), model.predict_proba(test_x)
    )
    np.testing.assert_array_equal(
        knn_predict(train_x, train_y, test_x, k, metric=metric), model.predict(test_x)
    )


def test_similarity_weights_equal_a_loop() -> None:
    train_x, train_y, test_x, _ = clusters(1, n=60)
    scores = knn_scores(train_x, train_y, test_x, k=7, weights="similarity")
    for row, query in enumerate(test_x):
        similarity = train_x @ query / np.linalg.norm(train_x, axis=1) / np.linalg.norm(query)
        expected = np.zeros(5)
        for neighbor in np.argsort(-similarity)[:7]:
            expected[train_y[neighbor]] += np.exp(similarity[neighbor] / 0.07)
        np.testing.assert_allclose(scores[row], expected / expected.sum(), rtol=1e-4)


def test_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    train_x, train_y, test_x, _ = clusters(2)
    whole = knn_scores(train_x, train_y, test_x)
    monkeypatch.setattr(neighbors, "_CHUNK_ELEMENTS", 7 * len(train_x))
    np.testing.assert_allclose(knn_scores(train_x, train_y, test_x), whole)
    alone = knn_scores(train_x, train_y, train_x, k=1, leave_one_out=True)
    monkeypatch.undo()
    np.testing.assert_allclose(
        alone, knn_scores(train_x, train_y, train_x, k=1, leave_one_out=True)
    )


def test_leave_one_out_never_finds_itself() -> None:
    x = np.random.default_rng(3).normal(size=(40, 8))
    y = np.arange(40)
    assert (knn_predict(x, y, x, k=1) == y).all()
    scores = knn_scores(x, y, x, k=1, leave_one_out=True)
    assert (scores.argmax(axis=1) != y).all()


def test_scale_of_a_feature_vector_does_not_matter_with_cosine() -> None:
    train_x, train_y, test_x, _ = clusters(4)
    scale = np.random.default_rng(0).uniform(0.1, 9, (len(train_x), 1))
    np.testing.assert_array_equal(
        knn_predict(train_x * scale, train_y, test_x), knn_predict(train_x, train_y, test_x)
    )


def test_few_training_features_and_absent_classes() -> None:
    scores = knn_scores(np.eye(3), np.array([0, 0, 2]), np.eye(3)[:1], k=10, num_classes=5)
    np.testing.assert_allclose(scores, [[2 / 3, 0, 1 / 3, 0, 0]])


def test_unlabeled_training_features_are_refused() -> None:
    with pytest.raises(ValueError, match="label"):
        knn_predict(np.eye(3), np.array([0, -1, 2]), np.eye(3))
    with pytest.raises(ValueError, match="cosine"):
        knn_scores(np.eye(3), np.arange(3), np.eye(3), metric="euclidean", weights="similarity")
