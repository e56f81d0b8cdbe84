import numpy as np
import pytest

from simclr_tf.evaluation.neighbors import nearest_neighbors


def brute_force(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    rows = features.astype(np.float64)
    distance = np.empty((len(rows), len(rows)))
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            distance[i, j] = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    np.fill_diagonal(distance, np.inf)
    order = np.argsort(distance, axis=1)[:, :k]
    return order, np.take_along_axis(distance, order, axis=1)


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_the_same_as_all_pairs(block: int) -> None:
    features = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    indices, distances = nearest_neighbors(features, 7, block)
    expected, expected_distances = brute_force(features, 7)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, expected_distances, atol=1e-6)
    assert indices.dtype == np.int64
    assert distances.dtype == np.float32


def test_copies_are_neighbors_of_each_other_and_never_of_themselves() -> None:
    features = np.array([[1, 0], [2, 0], [0, 3], [1, 0]], np.float32)
    indices, distances = nearest_neighbors(features, 2)
    assert indices.tolist() == [[1, 3], [0, 3], [0, 1], [0, 1]]
    np.testing.assert_allclose(distances, [[0, 0], [0, 0], [1, 1], [0, 0]], atol=1e-6)


def test_few_features_have_few_neighbors() -> None:
    features = np.eye(3, dtype=np.float32)
    assert nearest_neighbors(features, 7)[0].shape == (3, 2)
    assert nearest_neighbors(features[:1], 7)[0].shape == (1, 0)


def test_features_of_zeros_are_at_distance_one() -> None:
    features = np.array([[0, 0], [1, 2], [3, 4]], np.float32)
    assert nearest_neighbors(features, 2)[1][0].tolist() == [1, 1]
