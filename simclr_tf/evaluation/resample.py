"""Which images a bootstrap sample holds, and how often: the draws behind every interval.

See Efron and Tibshirani 1993, An Introduction to the Bootstrap. What is drawn are units: an image,
or a group of images (a drill core, a specimen, a patient) that are not independent of each other.
"""

from collections.abc import Iterator, Sequence

import numpy as np

# Numbers held at a time: a few megabytes, which stay in the cache.
_CHUNK = 2**20
_MIXED = -2


def draw_counts(
    n: int,
    resamples: int,
    seed: int,
    *,
    groups: Sequence[str] | np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Draws bootstrap samples, a chunk at a time.

    The draws depend on the arguments alone, so two models scored on the same images get the same
    samples, and their differences are paired.

    Args:
        n: images.
        resamples: samples in all.
        seed: of the draws.
        groups: [n]; images of one group are drawn together; None = each for itself.
        labels: int [n]; if given, units are drawn within their class, as a stratified split drew
            them, and units that hold several classes among themselves. None = all alike.

    Yields:
        int32 [b, n], how often each image is in each sample; the rows add up to `resamples`.
    """
    rng = np.random.default_rng(seed)
    unit = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    strata = _strata(unit, labels)
    size = max(1, _CHUNK // max(n, 1))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        counts = np.zeros((rows, int(unit.max()) + 1), np.int32)
        for members in strata:
            drawn = rng.integers(0, len(members), (rows, len(members)))
            drawn += np.arange(rows)[:, np.newaxis] * len(members)
            tally = np.bincount(drawn.ravel(), minlength=drawn.size)
            counts[:, members] = tally.reshape(drawn.shape)
        yield counts if groups is None else counts[:, unit]


def _strata(unit: np.ndarray, labels: np.ndarray | None) -> list[np.ndarray]:
    """The units of every stratum, int64 [m] each."""
    number = int(unit.max()) + 1
    if labels is None:
        return [np.arange(number)]
    lowest, highest = np.full(number, np.iinfo(np.int64).max), np.full(number, -1)
    np.minimum.at(lowest, unit, labels)
    np.maximum.at(highest, unit, labels)
    stratum = np.where(lowest == highest, lowest, _MIXED)
    return [np.flatnonzero(stratum == value) for value in np.unique(stratum)]
