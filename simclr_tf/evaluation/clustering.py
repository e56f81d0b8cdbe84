"""Clusters of features by direction: k-means, HDBSCAN and the number of clusters."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import HDBSCAN, KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from simclr_tf.evaluation.blockwise import Features, unit_blocks, unit_rows

NOISE = -1

_IN_MEMORY = 2**26  # numbers: above, k-means goes over the features a block at a time
_PASSES = 3
_SILHOUETTE_IMAGES = 2000
_MOST_CLUSTERS = 10
_DENSITY_DIMENSIONS = 50


@dataclass(frozen=True)
class Clusters:
    """Clusters of n rows.

    Attributes:
        labels: int64 [n], from 0, the largest cluster first; -1 = in none.
        medoids: int64 [K], the row nearest to the middle of each cluster.
    """

    labels: np.ndarray
    medoids: np.ndarray

    def __len__(self) -> int:
        """Number of clusters."""
        return len(self.medoids)


def kmeans(features: Features, clusters: int, seed: int = 0) -> Clusters:
    """K-means of the directions of the rows.

    Many rows are gone over block by block (Sculley 2010, Web-scale k-means clustering), so that
    memory does not grow with them.

    Args:
        features: float [n, d].
        clusters: Their number, at most n.
        seed: Of the starting centres.
    """
    n, d = features.shape
    with threadpool_limits(1, user_api="openmp"):  # threads would add up in any order
        if n * d <= _IN_MEMORY:
            rows = unit_rows(features[slice(0, n)])
            model = KMeans(clusters, n_init=10, random_state=seed)
            with warnings.catch_warnings():
                # Rows that are the same may be fewer than the clusters asked for.
                warnings.simplefilter("ignore", ConvergenceWarning)
                return _in_order(features, model.fit_predict(rows))
        model = MiniBatchKMeans(clusters, n_init=3, random_state=seed)
        starts = np.arange(0, n, size := max(4096, 3 * clusters))
        rng = np.random.default_rng(seed)
        for _ in range(_PASSES):
            for start in rng.permutation(starts):
                block = unit_rows(features[slice(start, start + size)])
                if len(block) >= clusters:
                    model.partial_fit(block)
        found = [model.predict(block) for _, block in unit_blocks(features)]
    return _in_order(features, np.concatenate(found))


def choose_clusters(features: Features, seed: int = 0) -> tuple[int, dict[int, float]]:
    """The number of clusters with the largest mean silhouette (Rousseeuw 1987).

    Args:
        features: float [n, d]; of many, a seeded sample is looked at.
        seed: Of sample and k-means.

    Returns:
        The number, and the silhouette of each that was tried.
    """
    n = len(features)
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:_SILHOUETTE_IMAGES])
    sample = unit_rows(features[rows])
    scores: dict[int, float] = {}
    for number in range(2, min(_MOST_CLUSTERS, len(sample) - 1) + 1):
        labels = kmeans(sample, number, seed).labels
        if len(np.unique(labels)) > 1:
            scores[number] = float(silhouette_score(sample, labels))
    return (max(scores, key=scores.__getitem__) if scores else 1), scores


def hdbscan(features: Features, min_cluster_size: int = 0, seed: int = 0) -> Clusters:
    """Clusters by density (Campello et al. 2013); rows in thin places belong to none.

    Density means little in hundreds of dimensions: above 50 the rows are first projected on
    their principal components.

    Args:
        features: float [n, d].
        min_cluster_size: Fewest rows of a cluster; 0 = a hundredth of all, but 5 at least.
        seed: Of the projection.
    """
    n = len(features)
    least = min_cluster_size or max(5, n // 100)
    if n < 2 * least:
        return Clusters(np.full(n, NOISE, np.int64), np.zeros(0, np.int64))
    rows = unit_rows(features[slice(0, n)])
    if rows.shape[1] > _DENSITY_DIMENSIONS < n:
        rows = PCA(_DENSITY_DIMENSIONS, random_state=seed).fit_transform(rows)
    return _in_order(features, HDBSCAN(min_cluster_size=least, copy=True).fit_predict(rows))


def _in_order(features: Features, found: np.ndarray) -> Clusters:
    """Numbers clusters by falling size, then by their first row, and finds their medoids."""
    names, first, sizes = np.unique(found[found >= 0], return_index=True, return_counts=True)
    rank = np.lexsort((first, -sizes))
    number = np.full(int(found.max(initial=0)) + 2, NOISE, np.int64)  # the last is that of -1
    number[names[rank]] = np.arange(len(names))
    labels = number[found]
    return Clusters(labels, _medoids(features, labels, len(names)))


def _medoids(features: Features, labels: np.ndarray, number: int) -> np.ndarray:
    centres = np.zeros((number, features.shape[1]))
    for start, block in unit_blocks(features):
        inside = labels[start : start + len(block)]
        np.add.at(centres, inside[inside >= 0], block[inside >= 0].astype(np.float64))
    centres = unit_rows(centres)
    best, medoids = np.full(number, -np.inf), np.zeros(number, np.int64)
    for start, block in unit_blocks(features):
        inside = labels[start : start + len(block)]
        near = (block * centres[np.maximum(inside, 0)]).sum(axis=1) if number else inside
        for cluster in range(number):
            rows = np.flatnonzero(inside == cluster)
            if len(rows) and near[rows].max() > best[cluster]:
                best[cluster] = near[rows].max()
                medoids[cluster] = start + rows[near[rows].argmax()]
    return medoids
