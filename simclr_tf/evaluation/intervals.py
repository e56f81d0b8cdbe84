"""Confidence intervals: Wilson's of a proportion, else a seeded bootstrap of any metric.

See Efron and Tibshirani 1993, An Introduction to the Bootstrap. Images of one group (a drill core,
a specimen, a patient) are not independent of each other: give `groups`, and whole groups are
resampled. For all metrics of a classifier at once, and fast, see `bootstrap`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simclr_tf.evaluation.degenerate import (
    Ends,
    difference_ends,
    has_no_spread,
    unchanged_ends,
    wilson_ends,
)

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
        int32 [b, n], how often each image is in each sample; over all chunks `resamples` rows.
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


Metric = Callable[[np.ndarray, np.ndarray], float]

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval.

    Attributes:
        value: the estimate on the data as they are.
        low: lower end.
        high: upper end.
        level: of confidence.
    """

    value: float
    low: float
    high: float
    level: float = 0.95

    def __format__(self, spec: str) -> str:
        """`0.740 [0.701, 0.776]`; the specification holds for each number."""
        spec = spec or ".3f"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def to_json(self) -> dict[str, float | None]:
        """Estimate and ends as JSON holds them; None where undefined."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if math.isnan(v) else v for name, v in numbers.items()}


@dataclass(frozen=True)
class Difference(Interval):
    """The difference of two estimates on the same images.

    Attributes:
        p_value: two-sided, of no difference: twice the share of resamples on the far side of 0.
    """

    p_value: float = 1.0


def interval_cell(interval: Interval, spec: str = ".3f") -> str:
    """An estimate above its interval, as a cell of a table; the format holds for each number."""
    if math.isnan(interval.value):
        return "–"
    if math.isnan(interval.low):
        return f"{interval.value:{spec}}"
    return f"{interval.value:{spec}}\n[{interval.low:{spec}}, {interval.high:{spec}}]"


def wilson_interval(right: np.ndarray, level: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927): it does not shrink to a point at 0 or 1.

    Args:
        right: bool [n], one answer an image, independent of each other; n > 0.
        level: of confidence.

    Returns:
        The interval of the share of right answers.
    """
    p = float(np.mean(right))
    return Interval(p, *wilson_ends(p, len(right), level), level)


def bootstrap_interval(
    metric: Metric,
    labels: np.ndarray,
    scores: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a metric over resampled images.

    Args:
        metric: (labels [n], predicted classes [n] or scores [n, K]) to a number.
        labels: int [n].
        scores: int [n] or float [n, K], as the metric takes.
        groups: [n], which images belong together; None = each for itself.
        resamples: bootstrap samples.
        level: of confidence.
        seed: of the resampling.

    Returns:
        The interval; resamples where the metric is nan are left out. Where all others are equal,
        it is Wilson's of as many answers as there are images or groups (of a metric in [0, 1]).
    """
    rows = _resampled_rows(len(labels), groups, resamples, seed)
    values = np.array([metric(labels[row], scores[row]) for row in rows])
    value = metric(labels, scores)
    units = len(labels) if groups is None else len(np.unique(groups))
    otherwise = wilson_ends(value, units, level) if 0 <= value <= 1 else None
    return percentile_interval(value, values, level, otherwise)


def percentile_interval(
    value: float, samples: np.ndarray, level: float = 0.95, otherwise: Ends | None = None
) -> Interval:
    """Interval between two quantiles of bootstrap samples.

    Args:
        value: the estimate on the data as they are.
        samples: float [B], the estimate on every sample; nan where it is undefined there.
        level: of confidence.
        otherwise: ends to take where the samples show no spread, see `degenerate`.

    Returns:
        The interval, which always holds the estimate. Its ends are nan without defined samples,
        and where all samples are equal and nothing else is known: an interval is never a point.
    """
    defined = samples[~np.isnan(samples)]
    if not len(defined) or np.isnan(value):
        return Interval(value, float("nan"), float("nan"), level)
    low, high = _ends(defined, level)
    low, high = min(low, value), max(high, value)
    if has_no_spread(low, high):
        low, high = otherwise or (float("nan"), float("nan"))
    return Interval(value, low, high, level)


def paired_difference(
    metric: Metric,
    labels: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Interval of metric(a) - metric(b), both on the same resampled images.

    Args:
        metric: (labels [n], predicted classes [n] or scores [n, K]) to a number.
        labels: int [n].
        scores_a: float [n, K].
        scores_b: float [n, K].
        groups: see `bootstrap_interval`.
        resamples: bootstrap samples.
        level: of confidence.
        seed: of the resampling.

    Returns:
        The difference.
    """
    rows = _resampled_rows(len(labels), groups, resamples, seed)
    values = np.array(
        [metric(labels[r], scores_a[r]) - metric(labels[r], scores_b[r]) for r in rows]
    )
    value = metric(labels, scores_a) - metric(labels, scores_b)
    units = len(labels) if groups is None else len(np.unique(groups))
    return _difference(value, values, units, level)


def _difference(value: float, samples: np.ndarray, units: int, level: float) -> Difference:
    """The interval of a difference of shares over so many images; never a point."""
    low, high = _ends(samples, level)
    if has_no_spread(low, high):
        below, above = unchanged_ends(units, level)
        low, high = value + below, value + above
    return Difference(value, low, high, level, _two_sided(samples))


def crossed_interval(
    correct: np.ndarray, *, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of a mean over repetitions and images, both resampled.

    For an experiment repeated r times (label draws, seeds) on the same n test images: the
    repetitions share the images, so neither r * n nor n independent values are at hand. Rows and
    columns are resampled (Owen 2007, The pigeonhole bootstrap), which errs on the wide side.

    Args:
        correct: float or bool [r, n], the value of each image in each repetition.
        resamples: bootstrap samples.
        level: of confidence.
        seed: of the resampling.

    Returns:
        The interval of the mean.
    """
    values, mean = _crossed_means(correct, resamples, seed), float(np.mean(correct))
    otherwise = wilson_ends(mean, correct.shape[1], level) if 0 <= mean <= 1 else None
    return percentile_interval(mean, values, level, otherwise)


def crossed_difference(
    correct_a: np.ndarray,
    correct_b: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """`crossed_interval` of the difference of two methods, paired by repetition and image.

    Args:
        correct_a: float or bool [r, n].
        correct_b: float or bool [r, n]; a method without repetitions may give [1, n].
        resamples: bootstrap samples.
        level: of confidence.
        seed: of the resampling.

    Returns:
        The difference of the means, a - b.
    """
    gap = correct_a.astype(np.float64) - correct_b.astype(np.float64)
    values = _crossed_means(gap, resamples, seed)
    return _difference(float(gap.mean()), values, gap.shape[1], level)


def _crossed_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    repeats, images = values.shape
    rows = rng.multinomial(repeats, np.full(repeats, 1 / repeats), resamples) / repeats
    columns = rng.multinomial(images, np.full(images, 1 / images), resamples) / images
    means: np.ndarray = np.einsum(
        "br,rn,bn->b", rows, values.astype(np.float64), columns, optimize=True
    )
    return means


def _resampled_rows(
    n: int, groups: np.ndarray | None, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    for counts in draw_counts(n, resamples, seed, groups=groups):
        yield from (np.repeat(np.arange(n), row) for row in counts)


def _ends(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _two_sided(differences: np.ndarray) -> float:
    """The smallest p-value that so many resamples can show is 2 / (their number + 1)."""
    n = len(differences)
    below, above = (differences <= 0).sum(), (differences >= 0).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (n + 1)))


class SampledMean(NamedTuple):
    """A mean over runs on the same images, and what resampling them gives.

    Attributes:
        value: The mean on the images as they are.
        samples: float64 [B], the same on every bootstrap sample.
        ends: Of its interval where the samples show no spread, see `degenerate`.
    """

    value: float
    samples: np.ndarray
    ends: Ends

    def interval(self, level: float = 0.95) -> Interval:
        """The percentile interval of the mean; never a point."""
        return percentile_interval(self.value, self.samples, level, self.ends)


def sampled_difference(a: SampledMean, b: SampledMean, level: float = 0.95) -> Difference:
    """The difference a - b of two means on the same samples.

    Args:
        a: One model's.
        b: The other's, from the same runs, resamples and seed.
        level: Of confidence.

    Returns:
        The difference, with its percentile interval and two-sided p-value. Where the samples show
        no spread the interval is that of two independent estimates, which errs on the wide side.
    """
    value = a.value - b.value
    gaps = a.samples - b.samples
    gaps = gaps[~np.isnan(gaps)]
    if not len(gaps) or math.isnan(value):
        return Difference(value, math.nan, math.nan, level, math.nan)
    low, high = map(float, np.quantile(gaps, [(1 - level) / 2, (1 + level) / 2]))
    if has_no_spread(low, high):
        low, high = difference_ends(a.value, a.ends, b.value, b.ends)
    tail = min((gaps <= 0).sum(), (gaps >= 0).sum())
    p_value = min(1.0, 2 * (int(tail) + 1) / (len(gaps) + 1))
    return Difference(value, low, high, level, p_value)
