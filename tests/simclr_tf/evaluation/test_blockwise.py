import numpy as np
import pytest

from simclr_tf.evaluation import neighbors as module
from simclr_tf.evaluation.neighbors import FeatureSubset, near_pairs, nearest


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(params=[(1024, 8192), (7, 5)])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, and in blocks that do not divide the number of rows."""
    queries, base = request.param
    monkeypatch.setattr(module, "_QUERIES", queries)
    monkeypatch.setattr(module, "_BASE", base)


@pytest.mark.usefixtures("blocks")
def test_neighbors_are_those_of_the_whole_table_of_cosines() -> None:
    rng = np.random.default_rng(0)
    queries, base = rng.normal(size=(23, 6)), rng.normal(size=(31, 6))
    cosines = unit(queries) @ unit(base).T
    order = np.argsort(-cosines, axis=1)[:, :4]
    found = nearest(queries, base, 4)
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(
        found.similarities, np.take_along_axis(cosines, order, axis=1), atol=1e-6
    )
    assert (found.indices.dtype, found.similarities.dtype) == (np.int64, np.float32)


@pytest.mark.usefixtures("blocks")
def test_no_row_is_its_own_neighbor() -> None:
    x = np.random.default_rng(1).normal(size=(29, 5))
    cosines = unit(x) @ unit(x).T
    np.fill_diagonal(cosines, -2)
    found = nearest(x, x, 3, not_itself=True)
    np.testing.assert_array_equal(found.indices, np.argsort(-cosines, axis=1)[:, :3])


@pytest.mark.usefixtures("blocks")
def test_fewer_rows_give_fewer_neighbors() -> None:
    x = np.random.default_rng(2).normal(size=(3, 4))
    assert nearest(x, x, 10, not_itself=True).indices.shape == (3, 2)
    assert nearest(x[:1], x[:1], 10, not_itself=True).indices.shape == (1, 0)
    assert sorted(nearest(x[:1], x, 10).indices[0]) == [0, 1, 2]


@pytest.mark.usefixtures("blocks")
def test_near_pairs_are_all_above_the_threshold_the_most_alike_first() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 3))
    cosines = unit(x) @ unit(x).T
    expected = [
        (-cosines[i, j], i, j) for i in range(40) for j in range(i + 1, 40) if cosines[i, j] >= 0.9
    ]
    found = near_pairs(x, 0.9, 1000)
    assert found.total == len(expected) > 10
    assert found.pairs.tolist() == [[i, j] for _, i, j in sorted(expected)]
    few = near_pairs(x, 0.9, 5)
    assert few.total == len(expected)
    assert few.pairs.tolist() == found.pairs[:5].tolist()


def test_picked_rows_stand_for_an_array_of_them() -> None:
    x = np.random.default_rng(4).normal(size=(9, 2))
    rows = np.array([7, 0, 3, 5])
    picked = FeatureSubset(x, rows)
    assert (len(picked), picked.shape) == (4, (4, 2))
    np.testing.assert_array_equal(picked[1:3], x[rows][1:3])
    np.testing.assert_array_equal(
        nearest(picked, picked, 2).indices, nearest(x[rows], x[rows], 2).indices
    )
