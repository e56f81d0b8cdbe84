"""Neighbours and near duplicates among features that lie in a file: exact, in flat memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simclr_tf.evaluation.features import l2_normalize
from simclr_tf.evaluation.neighbors import closest

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
class Picked:
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
