"""Whole numbers from shares, by the method of largest remainders."""

from collections.abc import Sequence

import numpy as np

_TINY = 1e-9


def apportion(total: int, shares: Sequence[float]) -> np.ndarray:
    """Whole numbers with sum `total`, each the share of it rounded down or up.

    Equal remainders go to the earlier share. int64 [len(shares)].
    """
    exact = total * np.asarray(shares, dtype=np.float64) / np.sum(shares)
    # 0.7 * 10 is a hair under 7 in floating point; it must not lose an image for that.
    counts = np.floor(exact + _TINY).astype(np.int64)
    order = np.argsort(-(exact - counts).round(9), kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts


def apportion_table(sizes: Sequence[int], shares: Sequence[float]) -> np.ndarray:
    """Shares out several classes so that the columns, too, are those of the whole.

    Rows are rounded one by one, then single images are moved between columns, along chains of
    classes where needed, so that a cell stays the exact value rounded down or up.

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
