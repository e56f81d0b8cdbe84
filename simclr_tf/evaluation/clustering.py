"""Clusters of features by direction, their agreement with labels, and outliers."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import csr_array
from sklearn.cluster import HDBSCAN, KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.neighbors import LocalOutlierFactor
from threadpoolctl import threadpool_limits

from simclr_tf.evaluation.degenerate import wilson_ends
from simclr_tf.evaluation.intervals import RESAMPLES, Interval, draw_counts, percentile_interval
from simclr_tf.evaluation.neighbors import Features, Nearest, unit_blocks, unit_rows

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
    centers = np.zeros((number, features.shape[1]))
    for start, block in unit_blocks(features):
        inside = labels[start : start + len(block)]
        np.add.at(centers, inside[inside >= 0], block[inside >= 0].astype(np.float64))
    centers = unit_rows(centers)
    best, medoids = np.full(number, -np.inf), np.zeros(number, np.int64)
    for start, block in unit_blocks(features):
        inside = labels[start : start + len(block)]
        near = (block * centers[np.maximum(inside, 0)]).sum(axis=1) if number else inside
        for cluster in range(number):
            rows = np.flatnonzero(inside == cluster)
            if len(rows) and near[rows].max() > best[cluster]:
                best[cluster] = near[rows].max()
                medoids[cluster] = start + rows[near[rows].argmax()]
    return medoids


AGREEMENT_NAMES = ("purity", "nmi", "ari")
_BOUNDS = {"purity": (0.0, 1.0), "nmi": (0.0, 1.0), "ari": (-1.0, 1.0)}


def purity(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Share of images that have the most frequent label of their cluster; both int [n].

    It rises with the number of clusters, to 1 when every image is its own.
    """
    return float(contingency_matrix(labels, clusters).max(axis=0).sum() / len(labels))


def cluster_agreement(
    labels: np.ndarray,
    clusters: np.ndarray,
    *,
    groups: Sequence[str] | np.ndarray | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Purity, normalised mutual information and adjusted Rand index, with percentile intervals.

    The clusters are taken as given; images are resampled within their label. An image that is
    drawn twice agrees with itself, so the intervals err upwards, the more the fewer images.

    Args:
        labels: int [n], n > 0.
        clusters: int [n].
        groups: [n], which images belong together; None = each for itself.
        resamples: Bootstrap samples; 0 = values alone.
        level: Of confidence.
        seed: Of the resampling.

    Returns:
        By `AGREEMENT_NAMES`: the share of `purity`; `nmi` (arithmetic mean of the entropies,
        Vinh et al. 2010); `ari` (Hubert and Arabie 1985).
    """
    values = {
        "purity": purity(labels, clusters),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
    }
    row, column = (np.unique(x, return_inverse=True)[1] for x in (labels, clusters))
    width, height = int(column.max()) + 1, int(row.max()) + 1
    units = len(labels) if groups is None else len(np.unique(groups))
    parts = []
    for counts in draw_counts(len(labels), resamples, seed, groups=groups, labels=row):
        cell = np.arange(len(counts))[:, np.newaxis] * (width * height) + row * width + column
        tables = np.bincount(cell.ravel(), counts.ravel(), len(counts) * width * height)
        parts.append(_of_tables(tables.reshape(len(counts), height, width)))
    return {
        name: percentile_interval(
            values[name],
            np.concatenate([part[name] for part in parts]) if parts else np.zeros(0),
            level,
            wilson_ends(values[name], units, level, _BOUNDS[name]),
        )
        for name in AGREEMENT_NAMES
    }


def _of_tables(tables: np.ndarray) -> dict[str, np.ndarray]:
    """The three numbers of contingency tables, float64 [b, labels, clusters]: [b] each."""
    n = tables.sum(axis=(1, 2))
    by_label, by_cluster = tables.sum(axis=2), tables.sum(axis=1)
    return {
        "purity": tables.max(axis=1).sum(axis=1) / n,
        "nmi": _mutual_information(tables, by_label, by_cluster, n),
        "ari": _rand(tables, by_label, by_cluster, n),
    }


def _mutual_information(
    tables: np.ndarray, by_label: np.ndarray, by_cluster: np.ndarray, n: np.ndarray
) -> np.ndarray:
    labels, clusters = _entropy(by_label, n), _entropy(by_cluster, n)
    both = _entropy(tables.reshape(len(tables), -1), n)
    mean = (labels + clusters) / 2
    return np.divide(labels + clusters - both, mean, out=np.ones_like(mean), where=mean > 0)


def _entropy(counts: np.ndarray, n: np.ndarray) -> np.ndarray:
    share = counts / n[:, np.newaxis]
    return -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1)


def _rand(
    tables: np.ndarray, by_label: np.ndarray, by_cluster: np.ndarray, n: np.ndarray
) -> np.ndarray:
    def pairs(counts: np.ndarray) -> np.ndarray:
        return counts * (counts - 1) / 2

    together = pairs(tables).sum(axis=(1, 2))
    labels, clusters = pairs(by_label).sum(axis=1), pairs(by_cluster).sum(axis=1)
    expected = labels * clusters / np.maximum(pairs(n), 1)
    most = (labels + clusters) / 2
    return np.divide(
        together - expected, most - expected, out=np.ones_like(n), where=most > expected
    )


Rule = Literal["distance", "lof"]


def outlier_scores(neighbors: Nearest, rule: Rule = "distance") -> np.ndarray:
    """A score for each row, the larger the more it stands apart.

    Args:
        neighbors: Of all n rows among themselves, k of each, k > 0.
        rule: `distance`, the mean cosine distance to the neighbours; `lof`, the local outlier
            factor (Breunig et al. 2000) of Euclidean distances between rows of length 1: about 1
            inside a cluster, whatever its density.

    Returns:
        float32 [n].
    """
    distance = np.maximum(1 - neighbors.similarities.astype(np.float64), 0)
    if rule == "distance":
        return distance.mean(axis=1).astype(np.float32)
    n, k = distance.shape
    graph = csr_array(
        (np.sqrt(2 * distance).ravel(), neighbors.indices.ravel(), np.arange(n + 1) * k),
        shape=(n, n),
    )
    return _factor(graph, k)


def _factor(graph: csr_array, k: int) -> np.ndarray:
    """The factor of a graph of distances to k neighbours, which leaves out every row itself."""
    n = graph.shape[0]
    # scikit-learn counts a row among its own neighbours in a graph that is handed over.
    itself = csr_array((np.zeros(n), np.arange(n), np.arange(n + 1)), shape=(n, n))
    rows = np.concatenate([itself.indices[:, None], graph.indices.reshape(n, k)], axis=1)
    values = np.concatenate([itself.data[:, None], graph.data.reshape(n, k)], axis=1)
    whole = csr_array((values.ravel(), rows.ravel(), np.arange(n + 1) * (k + 1)), shape=(n, n))
    model = LocalOutlierFactor(n_neighbors=k, metric="precomputed").fit(whole)
    return -model.negative_outlier_factor_.astype(np.float32)
