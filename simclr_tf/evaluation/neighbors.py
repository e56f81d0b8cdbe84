"""The features nearest to a feature: exact, a block of rows at a time."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from simclr_tf.evaluation.features import l2_normalize

Metric = Literal["cosine", "euclidean"]


def nearest_neighbours(
    features: np.ndarray, k: int, block: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """The k other features at the least cosine distance from every feature.

    Args:
        features: float [n, d]; rows of zeros are at distance 1 from everything.
        k: neighbours; fewer if there are fewer other features.
        block: rows whose distances to all others are held at a time.

    Returns:
        indices int64 [n, k], the nearest first; distances float32 [n, k] in [0, 2], 1 - cosine.
    """
    features = features.astype(np.float32)
    blocks = list(closest(features, features, k, leave_one_out=True, block=block))
    indices = np.concatenate([rows for rows, _ in blocks])
    similarity = np.concatenate([values for _, values in blocks])
    return indices, np.clip(1 - similarity, 0, 2)


def closest(
    queries: np.ndarray,
    keys: np.ndarray,
    k: int,
    *,
    metric: Metric = "cosine",
    leave_one_out: bool = False,
    block: int = 1024,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The k keys closest to every query, the closest first, a block of queries at a time.

    Args:
        queries: float [m, d].
        keys: float [n, d], n >= 1.
        k: keys a query; fewer if there are fewer.
        metric: `cosine` compares directions, `euclidean` distances.
        leave_one_out: queries are the keys, and none is its own neighbour.
        block: queries in a block.

    Yields:
        For block after block: indices int64 [b, k]; similarity [b, k], the cosine, or minus the
        squared distance but for a part that is the same in a row.
    """
    k = min(k, len(keys) - leave_one_out)
    if metric == "cosine":
        queries, keys = l2_normalize(queries), l2_normalize(keys)
    for start in range(0, len(queries), block):
        similarity = _similarity(queries[start : start + block], keys, metric)
        if leave_one_out:
            rows = np.arange(len(similarity))
            similarity[rows, start + rows] = -np.inf
        indices = np.argpartition(-similarity, max(k - 1, 0), axis=1)[:, :k]
        values = np.take_along_axis(similarity, indices, axis=1)
        order = np.lexsort((indices, -values), axis=1)
        yield np.take_along_axis(indices, order, 1), np.take_along_axis(values, order, 1)


def _similarity(queries: np.ndarray, keys: np.ndarray, metric: Metric) -> np.ndarray:
    product = queries @ keys.T
    if metric == "cosine":
        return product
    return 2 * product - (keys**2).sum(axis=1)
