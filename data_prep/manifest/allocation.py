"""Shares as whole numbers, and the allocation of whole groups as near to them as possible."""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

_TINY = 1e-9


def apportion(total: int, shares: Sequence[float]) -> np.ndarray:
    """Divides `total` into whole numbers, each its share of it rounded down or up.

    Of equal remainders the earlier share is rounded up.

    Returns:
        int64 [len(shares)], with sum `total`.
    """
    exact = total * np.asarray(shares, dtype=np.float64) / np.sum(shares)
    # 0.7 * 10 is a hair under 7 in floating point; it must not lose an image for that.
    counts = np.floor(exact + _TINY).astype(np.int64)
    order = np.argsort(-(exact - counts).round(9), kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts


def apportion_table(sizes: Sequence[int], shares: Sequence[float]) -> np.ndarray:
    """Divides several classes so that the totals of the splits, too, are exact.

    Rows are rounded one by one. Then single images are moved between columns, along chains of
    classes where needed, so that each cell stays the exact value rounded down or up.

    Args:
        sizes: Images of every class, [classes].
        shares: Share of every split, [splits].

    Returns:
        int64 [classes, splits]; rows add up to `sizes`, columns to `apportion(sum(sizes), shares)`.
    """
    table = np.stack([apportion(size, shares) for size in sizes])
    exact = np.outer(sizes, shares) / np.sum(shares)
    wanted = apportion(int(np.sum(sizes)), shares)
    while (surplus := table.sum(axis=0) - wanted).any():
        _move(table, exact, int(np.argmax(surplus)), surplus)
    return table


def _move(table: np.ndarray, exact: np.ndarray, start: int, surplus: np.ndarray) -> None:
    """Moves one image from column `start` to one that lacks some, over other columns if needed."""
    up, down = table > exact + _TINY, table < exact - _TINY
    came_from: dict[int, tuple[int, int]] = {start: (-1, -1)}
    queue = [start]
    for column in queue:
        if surplus[column] < 0:
            _shift(table, came_from, start, column)
            return
        for other in range(table.shape[1]):
            rows = np.flatnonzero(up[:, column] & down[:, other])
            if other not in came_from and len(rows):
                gain = table[rows, column] - exact[rows, column]
                gain += exact[rows, other] - table[rows, other]
                came_from[other] = (int(rows[np.argmax(gain)]), column)
                queue.append(other)
    # No rounding allows it: take the image from the largest class.
    row, to = int(np.argmax(table[:, start])), int(np.argmin(surplus))
    table[row, start] -= 1
    table[row, to] += 1


def _shift(
    table: np.ndarray, came_from: dict[int, tuple[int, int]], start: int, column: int
) -> None:
    """Carries out the moves found, from the last one back to `start`."""
    while column != start:
        row, before = came_from[column]
        table[row, before] -= 1
        table[row, column] += 1
        column = before


_MOST_KINDS = 600
_MOST_CHANGES = 1000


def deal(counts: np.ndarray, wanted: np.ndarray, orders: Iterable[np.ndarray]) -> np.ndarray:
    """Deals units out to splits and exchanges them until the table comes no nearer to the wanted.

    Args:
        counts: int64 [units, classes], images of every unit.
        wanted: int64 [classes, splits], the table to come near to.
        orders: Permutations of the units. With the first the largest go first, and the order
            settles which of equal size; with others they go as ordered, so that the exchanges
            begin elsewhere. The best result counts, the earlier one if two are equal.

    Returns:
        int64 [units], the split of every unit; no split is empty if there are enough units.
    """
    best, lowest = np.empty(0, dtype=np.int64), np.inf
    sizes = counts.sum(axis=1)
    for start, order in enumerate(orders):
        queue = order if start else order[np.argsort(-sizes[order], kind="stable")]
        chosen = fill(counts, wanted, queue)
        _exchange(chosen, counts, wanted, order)
        distance = misfit(counts, wanted, chosen)
        if distance < lowest:
            best, lowest = chosen, distance
        if not lowest:
            break
    return best


def misfit(counts: np.ndarray, wanted: np.ndarray, chosen: np.ndarray) -> int:
    """Squared differences from the wanted table, over its cells and over the splits' totals."""
    missing = wanted - _dealt(counts, chosen, wanted.shape[1])
    return int((missing**2).sum() + (missing.sum(axis=0) ** 2).sum())


def _dealt(counts: np.ndarray, chosen: np.ndarray, num_splits: int) -> np.ndarray:
    """The table of images [classes, splits] that came out."""
    table = np.zeros((num_splits, counts.shape[1]), dtype=np.int64)
    np.add.at(table, chosen, counts)
    return table.T


def fill(counts: np.ndarray, wanted: np.ndarray, queue: np.ndarray) -> np.ndarray:
    """Deals units out one by one, each to the split where it fills the table best."""
    sizes = counts.sum(axis=1)
    missing = wanted.astype(np.float64)
    chosen = np.empty(len(counts), dtype=np.int64)
    for unit in queue.tolist():
        own = counts[unit][:, np.newaxis]
        # Squared misfit of the class table and of the sizes of the splits, before and after.
        gain = (missing**2 - (missing - own) ** 2).sum(axis=0)
        total = missing.sum(axis=0)
        gain += total**2 - (total - sizes[unit]) ** 2
        split = int(np.argmax(gain))
        missing[:, split] -= own[:, 0]
        chosen[unit] = split
    _fill_empty(chosen, sizes.tolist(), wanted.shape[1])
    return chosen


def _fill_empty(chosen: np.ndarray, sizes: Sequence[int], num_splits: int) -> None:
    """Gives splits that got no unit the smallest unit of a split with several."""
    for split in range(num_splits):
        several = np.bincount(chosen, minlength=num_splits)[chosen] > 1
        if split not in chosen and several.any():
            movable = np.flatnonzero(several).tolist()
            chosen[min(movable, key=sizes.__getitem__)] = split


def _exchange(
    chosen: np.ndarray, counts: np.ndarray, wanted: np.ndarray, order: np.ndarray
) -> None:
    """Steepest descent of the misfit by moves of one unit and exchanges of two, in place.

    Units with equal counts are of one kind, and only kinds are compared; of very many kinds only
    the smallest, which are the ones that settle the last images.
    """
    num_splits = wanted.shape[1]
    kinds, kind = np.unique(counts, axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    smallest = np.argsort(kinds.sum(axis=1), kind="stable")[:_MOST_KINDS]
    # Counts per class and, last, in all; the row of zeros stands for "no unit": a move.
    profile = np.zeros((len(smallest) + 1, counts.shape[1] + 1), dtype=np.int64)
    profile[1:, :-1] = kinds[smallest]
    profile[:, -1] = profile.sum(axis=1)
    square = (profile**2).sum(axis=1)
    apart = square[:, np.newaxis] + square - 2 * profile @ profile.T
    row = np.zeros(len(kinds), dtype=np.int64)
    row[smallest] = np.arange(1, len(smallest) + 1)
    row_of_unit = row[kind]
    have = np.zeros((num_splits, len(profile)), dtype=np.int64)
    np.add.at(have, (chosen, row_of_unit), 1)
    missing = (wanted - _dealt(counts, chosen, num_splits)).T
    missing = np.column_stack([missing, missing.sum(axis=1)])
    rank = np.argsort(order)
    for _ in range(_MOST_CHANGES):
        found = (
            _best_exchange(have, profile, apart, missing, *pair)
            for pair in combinations(range(num_splits), 2)
        )
        change, a, b, one, other = min(found, default=(0, 0, 0, 0, 0))
        if change >= 0:
            return
        moved = profile[a] - profile[b]
        missing[one] += moved
        missing[other] -= moved
        units = [_first(rank, (chosen == one) & (row_of_unit == a)) if a else -1]
        units += [_first(rank, (chosen == other) & (row_of_unit == b)) if b else -1]
        for unit, source, target in zip(units, (one, other), (other, one), strict=True):
            if unit >= 0:
                chosen[unit] = target
                have[source, row_of_unit[unit]] -= 1
                have[target, row_of_unit[unit]] += 1


def _best_exchange(
    have: np.ndarray,
    profile: np.ndarray,
    apart: np.ndarray,
    missing: np.ndarray,
    one: int,
    other: int,
) -> tuple[int, int, int, int, int]:
    """The best exchange between two splits.

    Returns:
        Change of the misfit, row that `one` gives, row that `other` gives, `one`, `other`; row 0
        is nothing.
    """
    # A split may give a unit away without getting one only if it has more.
    rows = [np.flatnonzero(have[split] > 0) for split in (one, other)]
    rows = [present[present > 0] for present in rows]
    may_lose = [have[split].sum() > 1 for split in (one, other)]
    a = np.concatenate([[0], rows[0]]) if may_lose[1] else rows[0]
    b = np.concatenate([[0], rows[1]]) if may_lose[0] else rows[1]
    if not len(a) or not len(b):
        return 0, 0, 0, one, other
    pull = profile @ (missing[one] - missing[other])
    # Moving d = a - b turns the misfit's |m1|^2 + |m2|^2 into |m1 + d|^2 + |m2 - d|^2.
    change = 2 * (pull[a][:, np.newaxis] - pull[b] + apart[np.ix_(a, b)])
    place = int(np.argmin(change))
    i, j = divmod(place, len(b))
    return int(change[i, j]), int(a[i]), int(b[j]), one, other


def _first(rank: np.ndarray, among: np.ndarray) -> int:
    candidates = np.flatnonzero(among)
    return int(candidates[np.argmin(rank[candidates])])
