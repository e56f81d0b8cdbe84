"""How well clusters agree with labels: purity, NMI and ARI, with bootstrap intervals."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from simclr_tf.evaluation.degenerate import wilson_ends
from simclr_tf.evaluation.intervals import RESAMPLES, Interval, percentile_interval
from simclr_tf.evaluation.resample import draw_counts

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
