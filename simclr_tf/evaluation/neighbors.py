"""Nearest neighbors of features: exact search in blocks, k-NN classification, near duplicates."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from simclr_tf.evaluation.features import l2_normalize

Metric = Literal["cosine", "euclidean"]


def nearest_neighbors(
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


_CHUNK_ELEMENTS = 1 << 25  # similarities held at a time: 128 MiB of float32
_TEMPERATURE = 0.07


def knn_scores(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    *,
    k: int = 10,
    num_classes: int | None = None,
    metric: Metric = "cosine",
    weights: Literal["uniform", "similarity"] = "uniform",
    leave_one_out: bool = False,
) -> np.ndarray:
    """Share of each class among the k nearest training features.

    Args:
        train_x: float [n, d].
        train_y: int [n], classes from 0.
        test_x: float [m, d].
        k: neighbours; fewer if there are fewer training features.
        num_classes: columns of the result; the largest class + 1 if None.
        metric: `cosine` compares directions (rows of zeros are unlike everything),
            `euclidean` distances.
        weights: `uniform`, one vote a neighbour; `similarity`, exp(similarity / 0.07) with
            cosine (Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance
            Discrimination, section 3.4).
        leave_one_out: test_x is train_x, and no feature may be its own neighbour.

    Returns:
        float64 [m, num_classes], rows summing to 1.

    Raises:
        ValueError: no training features, negative labels, or weights that need cosine.
    """
    if len(train_x) == 0 or train_y.min() < 0:
        raise ValueError("k-NN needs labelled training features: leave out those without label")
    if weights == "similarity" and metric != "cosine":
        raise ValueError("weights='similarity' needs metric='cosine'")
    columns = int(train_y.max()) + 1 if num_classes is None else num_classes
    train, test = train_x.astype(np.float32), test_x.astype(np.float32)
    scores = np.empty((len(test), columns))
    step = max(1, _CHUNK_ELEMENTS // len(train))
    blocks = closest(test, train, k, metric=metric, leave_one_out=leave_one_out, block=step)
    for start, (nearest, similarity) in zip(range(0, len(test), step), blocks, strict=True):
        votes = np.ones(nearest.shape)
        if weights == "similarity":
            close = similarity.astype(np.float64)
            votes = np.exp((close - close[:, :1]) / _TEMPERATURE)
        scores[start : start + step] = _tally(train_y[nearest], votes, columns)
    return scores


def knn_predict(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    k: int = 10,
    *,
    metric: Metric = "cosine",
    weights: Literal["uniform", "similarity"] = "uniform",
) -> np.ndarray:
    """The class most frequent among the k nearest; ties go to the smallest class.

    Args:
        train_x: float [n, d].
        train_y: int [n].
        test_x: float [m, d].
        k: neighbours.
        metric: see `knn_scores`.
        weights: see `knn_scores`.

    Returns:
        int64 [m].
    """
    scores = knn_scores(train_x, train_y, test_x, k=k, metric=metric, weights=weights)
    return scores.argmax(axis=1)


def _tally(classes: np.ndarray, votes: np.ndarray, columns: int) -> np.ndarray:
    """Adds up votes [m, k] by class [m, k] into shares [m, columns]."""
    rows = np.arange(len(classes))[:, None] * columns
    flat = np.bincount((rows + classes).ravel(), votes.ravel(), len(classes) * columns)
    return flat.reshape(len(classes), columns) / votes.sum(axis=1, keepdims=True)


Progress = Callable[[int, int], None]

_QUERIES, _BASE = 1024, 8192  # 32 MiB of similarities at a time


class Features(Protocol):
    """Features [n, d] in memory or in a file; only blocks of them are ever asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class FeatureSubset:
    """Some rows of features, as features of their own.

    Attributes:
        of: All of them.
        rows: int64 [m].
    """

    of: Features
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(m, d)."""
        return len(self.rows), self.of.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self.of[self.rows[rows]]


@dataclass(frozen=True)
class Nearest:
    """The nearest of each of m rows, the nearest first.

    Attributes:
        indices: int64 [m, k], rows of what was searched.
        similarities: float32 [m, k], cosines.
    """

    indices: np.ndarray
    similarities: np.ndarray


@dataclass(frozen=True)
class NearPairs:
    """Pairs of rows that are alike, the most alike first.

    Attributes:
        pairs: int64 [p, 2], the smaller row first.
        similarities: float32 [p], cosines.
        total: Pairs in all; `pairs` may be only the most alike of them.
    """

    pairs: np.ndarray
    similarities: np.ndarray
    total: int


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows [n, d] scaled to length 1, float32; rows of zeros stay zero."""
    return l2_normalize(np.asarray(features, np.float32))


def unit_blocks(features: Features, size: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """Position of the first row, and rows scaled to length 1, float32 [at most size, d]."""
    size = size or _BASE
    for start in range(0, len(features), size):
        yield start, unit_rows(features[start : start + size])


def nearest(
    queries: Features,
    base: Features,
    k: int,
    *,
    not_itself: bool = False,
    progress: Progress = lambda done, total: None,
) -> Nearest:
    """The k rows of the base that are most alike to each query.

    Args:
        queries: float [m, d].
        base: float [n, d].
        k: Neighbours; fewer if there are fewer rows.
        not_itself: The queries are the base, and no row is its own neighbour.
        progress: Called with (queries done, queries in all).

    Returns:
        The neighbours; among rows that are equally alike, which come in is not defined.
    """
    k = min(k, len(base) - not_itself)
    indices = np.zeros((len(queries), k), np.int64)
    similarities = np.zeros((len(queries), k), np.float32)
    for start, query in unit_blocks(queries, _QUERIES):
        rows = slice(start, start + len(query))
        itself = start + np.arange(len(query)) if not_itself else None
        indices[rows], similarities[rows] = _nearest_of(query, base, k, itself)
        progress(start + len(query), len(queries))
    return Nearest(indices, similarities)


def _nearest_of(
    query: np.ndarray, base: Features, k: int, itself: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices and cosines of the k nearest; `itself`, an index a query, is left out."""
    where = np.zeros((len(query), 0), np.int64)
    best = np.zeros((len(query), 0), np.float32)
    for first, block in unit_blocks(base):
        # One more than wanted, as the row itself is always among the nearest.
        ((found, cosines),) = closest(query, block, k + 1, block=len(query))
        found = found + first
        if itself is not None:
            cosines = np.where(found == itself[:, np.newaxis], -np.inf, cosines)
        where, best = np.concatenate([where, found], 1), np.concatenate([best, cosines], 1)
        order = np.lexsort((where, -best), axis=1)[:, :k]
        where, best = np.take_along_axis(where, order, 1), np.take_along_axis(best, order, 1)
    return where, best


def near_pairs(
    features: Features,
    similarity: float,
    most: int,
    progress: Progress = lambda done, total: None,
) -> NearPairs:
    """All pairs of rows whose cosine is at least so large.

    Args:
        features: float [n, d].
        similarity: Least cosine.
        most: Pairs to keep; the others are counted.
        progress: Called with (rows done, rows in all).
    """
    pairs, values = np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    total = 0
    for start, query in unit_blocks(features, _QUERIES):
        for first in range(start, len(features), _BASE):
            block = query @ unit_rows(features[first : first + _BASE]).T
            rows, columns = np.nonzero(block >= similarity)
            later = first + columns > start + rows
            rows, columns = rows[later], columns[later]
            total += len(rows)
            found = np.stack([start + rows, first + columns], axis=1)
            pairs, values = _most_alike(
                np.concatenate([pairs, found]),
                np.concatenate([values, block[rows, columns]]),
                most,
            )
        progress(start + len(query), len(features))
    return NearPairs(pairs, values, total)


def _most_alike(pairs: np.ndarray, values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -values))[:most]
    return pairs[order], values[order]
