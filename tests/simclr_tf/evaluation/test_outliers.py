import numpy as np
from sklearn.neighbors import LocalOutlierFactor

from simclr_tf.evaluation.clustering import outlier_scores
from simclr_tf.evaluation.neighbors import nearest


def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(3, 0.3, (30, 5)), rng.normal(3, 1.0, (15, 5)), -np.ones((1, 5))])
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_distance_is_the_mean_over_the_neighbors() -> None:
    x = rows()
    scores = outlier_scores(nearest(x, x, 4, not_itself=True))
    for i, row in enumerate(x):
        cosines = np.delete(x @ row, i)
        assert np.isclose(scores[i], 1 - np.sort(cosines)[-4:].mean(), atol=1e-6)
    assert scores.argmax() == 45


def test_the_local_outlier_factor_is_scikit_learns() -> None:
    x = rows()
    scores = outlier_scores(nearest(x, x, 6, not_itself=True), "lof")
    expected = -LocalOutlierFactor(n_neighbors=6).fit(x).negative_outlier_factor_
    np.testing.assert_allclose(scores, expected, rtol=2e-3)
    assert scores.argmax() == 45
