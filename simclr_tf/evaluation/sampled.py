"""Estimates with their bootstrap samples: intervals of each, and of paired differences."""

import math
from typing import NamedTuple

import numpy as np

from simclr_tf.evaluation.degenerate import Ends, difference_ends, has_no_spread
from simclr_tf.evaluation.intervals import Difference, Interval, percentile_interval


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
