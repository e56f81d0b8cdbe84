import numpy as np
import pytest

from simclr_tf.evaluation import clustering
from simclr_tf.evaluation.clustering import NOISE, choose_clusters, hdbscan, kmeans


def blobs(sizes: tuple[int, ...] = (30, 20, 10), d: int = 8, noise: float = 0.05) -> tuple:
    """Directions about as many axes, of any length, in a random order, and which axis."""
    rng = np.random.default_rng(0)
    which = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = np.eye(d)[which] + rng.normal(0, noise, (len(which), d))
    return (x * rng.uniform(1, 5, (len(which), 1))).astype(np.float32), which


@pytest.mark.parametrize("in_memory", [2**26, 1])
def test_kmeans_finds_directions_and_numbers_them_by_size(
    in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, and a block at a time."""
    monkeypatch.setattr(clustering, "_IN_MEMORY", in_memory)
    x, which = blobs()
    found = kmeans(x, 3, seed=0)
    np.testing.assert_array_equal(found.labels, which)  # axis 0 has the most rows
    np.testing.assert_array_equal(kmeans(x, 3, seed=0).labels, found.labels)


def test_the_medoid_is_the_row_nearest_to_the_mean_direction() -> None:
    x, which = blobs()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for cluster, medoid in enumerate(kmeans(x, 3).medoids):
        rows = np.flatnonzero(which == cluster)
        assert medoid == rows[(unit[rows] @ unit[rows].mean(axis=0)).argmax()]


def test_the_silhouette_chooses_the_number_of_clusters() -> None:
    number, scores = choose_clusters(blobs((20, 20, 20, 20))[0])
    assert number == 4
    assert max(scores, key=scores.__getitem__) == 4


@pytest.mark.parametrize("d", [8, 80])
def test_hdbscan_finds_the_number_itself_and_leaves_out_what_is_alone(d: int) -> None:
    x, which = blobs((40, 30, 20), d, noise=0.02)
    alone = -np.eye(d)[:2]
    found = hdbscan(np.concatenate([x, alone]), min_cluster_size=5)
    assert len(found) == 3
    assert found.labels[-2:].tolist() == [NOISE, NOISE]
    inside = found.labels[:-2] != NOISE
    assert inside.mean() > 0.8
    np.testing.assert_array_equal(found.labels[:-2][inside], which[inside])
    assert all(found.labels[medoid] == k for k, medoid in enumerate(found.medoids))


def test_too_few_rows_are_noise() -> None:
    found = hdbscan(np.eye(4))
    assert (len(found), set(found.labels)) == (0, {NOISE})


def test_equal_rows_are_fewer_clusters_than_asked_for() -> None:
    found = kmeans(np.repeat(np.eye(2), 4, axis=0), 3)
    assert sorted(np.bincount(found.labels)) == [4, 4]
