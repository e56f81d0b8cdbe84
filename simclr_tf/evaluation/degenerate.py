"""Ends of intervals in closed form, for estimates on which resampling shows no spread.

Resampling repeats what is there. A classifier that says one class of every image, or that makes no
mistake, gives the same number on every bootstrap sample, and an interval of zero width would claim
that the number is known exactly. There an interval of a proportion takes its place: Wilson's score
interval (1927) of accuracies and recalls, the same of Jaccard's index for F1, Newcombe's of areas
under the ROC curve (2006, Confidence intervals for an effect size measure based on the Mann-Whitney
statistic, method 5), and for means over classes the distances from the estimate added in squares
(Zou and Donner 2008, Construction of confidence limits about effect measures).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from statistics import NormalDist

import numpy as np
from scipy.optimize import brentq

Ends = tuple[float, float]

_NO_SPREAD = 1e-9  # relative: what rounding leaves


def has_no_spread(low: float, high: float) -> bool:
    """True if an interval is a point, but for rounding; False where its ends are not defined."""
    return high - low <= _NO_SPREAD * max(1.0, abs(low), abs(high))


def wilson_ends(p: float, n: float, level: float, bounds: Ends = (0.0, 1.0)) -> Ends:
    """Score interval of a proportion (Wilson 1927), or of a mean that lies between two bounds.

    Args:
        p: The estimate.
        n: Independent answers, not necessarily a whole number; at least 1 is taken.
        level: Of confidence.
        bounds: The least and the largest possible value of the mean.

    Returns:
        Lower and upper end, which hold the estimate and differ.
    """
    least, most = bounds
    share, n = (p - least) / (most - least), max(n, 1.0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = share + z**2 / (2 * n)
    half = z * (share * (1 - share) / n + (z / (2 * n)) ** 2) ** 0.5
    low, high = ((middle + end) / (1 + z**2 / n) for end in (-half, half))
    # Rounding must not carry an end past the estimate, which at 0 and 1 is an end itself.
    low, high = min(share, max(low, 0.0)), max(share, min(high, 1.0))
    scale = most - least
    return min(p, least + scale * low), max(p, least + scale * high)


def jaccard_ends(f1: float, n: float, level: float) -> Ends:
    """Interval of F1 = 2 J / (1 + J), where J is a share of n images of the class or taken for it.

    Args:
        f1: The estimate.
        n: Images that are of the class or are taken for it.
        level: Of confidence.
    """
    low, high = wilson_ends(f1 / (2 - f1), n, level)
    return min(f1, 2 * low / (1 + low)), max(f1, 2 * high / (1 + high))


def auc_ends(area: float, positives: float, negatives: float, level: float) -> Ends:
    """Newcombe's interval of the area under a ROC curve; at 0 and 1 it does not shrink to a point.

    Args:
        area: The estimate.
        positives: Independent images of the class; at least 1 is taken.
        negatives: Of the rest, likewise.
        level: Of confidence.
    """
    m, n = max(positives, 1.0), max(negatives, 1.0)
    z = NormalDist().inv_cdf((1 + level) / 2)

    def excess(a: float) -> float:
        pairs = (1 - a) / (2 - a) + a / (1 + a)
        variance = a * (1 - a) * (1 + ((m + n) / 2 - 1) * pairs) / (m * n)
        return (area - a) ** 2 - z**2 * max(variance, 0.0)

    # The excess is below 0 at the estimate and at least 0 at the ends; at an end that is the
    # estimate there is nothing to look for.
    inside = 1e-9
    low = 0.0 if area <= inside else _root(excess, 0.0, area - inside * area)
    high = 1.0 if area >= 1 - inside else _root(excess, area + inside * (1 - area), 1.0)
    return min(low, area), max(high, area)


def _root(excess: Callable[[float], float], a: float, b: float) -> float:
    at_a, at_b = excess(a), excess(b)
    if at_a * at_b > 0:
        return a if abs(at_a) < abs(at_b) else b
    return float(brentq(excess, a, b))


def mean_ends(
    values: Sequence[float] | np.ndarray,
    ends: Sequence[Ends],
    weights: Sequence[float] | np.ndarray | None = None,
) -> Ends:
    """Interval of a weighted mean of independent estimates, of the intervals of each.

    Args:
        values: The estimates; those that are nan count for nothing.
        ends: The interval of each.
        weights: Of each; None = all alike.
    """
    known = ~np.isnan(np.asarray(values, np.float64))
    value = np.asarray(values, np.float64)[known]
    low, high = np.asarray(ends, np.float64)[known].T
    share = np.ones(len(value)) if weights is None else np.asarray(weights, np.float64)[known]
    share = share / share.sum()
    mean = float((share * value).sum())
    below = math.sqrt(float(((share * (value - low)) ** 2).sum()))
    above = math.sqrt(float(((share * (high - value)) ** 2).sum()))
    return mean - below, mean + above


def loss_ends(loss: float, n: float, level: float) -> Ends:
    """Interval of a log loss: Wilson's of exp(-loss), the geometric mean of the probabilities.

    Args:
        loss: The estimate in nats, at least 0.
        n: Independent images.
        level: Of confidence.
    """
    low, high = wilson_ends(math.exp(-loss), n, level)
    return min(loss, max(0.0, -math.log(high))), max(loss, -math.log(max(low, 1e-300)))


def difference_ends(a: float, ends_a: Ends, b: float, ends_b: Ends) -> Ends:
    """Interval of a - b of two estimates, of the intervals of each taken as independent."""
    below = math.hypot(a - ends_a[0], ends_b[1] - b)
    above = math.hypot(ends_a[1] - a, b - ends_b[0])
    return a - b - below, a - b + above


def unchanged_ends(n: float, level: float) -> Ends:
    """Interval of a difference of shares of n images on all of which two methods agree.

    Wilson's upper end for 0 of n bounds the share of images on which the methods may yet differ.
    """
    most = wilson_ends(0.0, n, level)[1]
    return -most, most


def classifier_ends(
    labels: np.ndarray,
    predicted: np.ndarray,
    overall: dict[str, float],
    per_class: dict[str, np.ndarray],
    units: int,
    level: float,
) -> tuple[dict[str, Ends], dict[str, list[Ends]]]:
    """Intervals in closed form of all metrics of a classifier.

    Args:
        labels: int [n].
        predicted: int [n].
        overall: Name -> estimate, as of `metrics.classification_metrics`.
        per_class: Name -> estimates float64 [K], as of `metrics.class_metrics`.
        units: Independent images or groups among the n.
        level: Of confidence.

    Returns:
        The same names with lower and upper ends; those of undefined estimates are nan.
    """
    classes = len(next(iter(per_class.values())))
    # Images of one group count as one answer.
    share = units / len(labels)
    true = np.bincount(labels, minlength=classes) * share
    given = np.bincount(predicted, minlength=classes) * share
    hits = np.bincount(labels[labels == predicted], minlength=classes) * share
    each = {
        "precision": _each(per_class["precision"], wilson_ends, given, level),
        "recall": _each(per_class["recall"], wilson_ends, true, level),
        "f1": _each(per_class["f1"], jaccard_ends, true + given - hits, level),
        "roc_auc": [
            _defined(
                area, partial(auc_ends, positives=true[k], negatives=units - true[k], level=level)
            )
            for k, area in enumerate(per_class["roc_auc"])
        ],
        "average_precision": _each(per_class["average_precision"], wilson_ends, true, level),
    }
    signed = (-1.0, 1.0)
    known: dict[str, Callable[[float], Ends]] = {
        "accuracy": lambda v: wilson_ends(v, units, level),
        "balanced_accuracy": lambda _: mean_ends(per_class["recall"], each["recall"]),
        "macro_f1": lambda _: mean_ends(per_class["f1"], each["f1"]),
        "weighted_f1": lambda _: mean_ends(
            np.nan_to_num(per_class["f1"]), np.nan_to_num(each["f1"]).tolist(), true
        ),
        "cohen_kappa": lambda v: wilson_ends(v, units, level, signed),
        "matthews_correlation": lambda v: wilson_ends(v, units, level, signed),
        "roc_auc": lambda _: mean_ends(per_class["roc_auc"], each["roc_auc"]),
        "average_precision": lambda _: mean_ends(
            per_class["average_precision"], each["average_precision"]
        ),
        "log_loss": lambda v: loss_ends(v, units, level),
        "expected_calibration_error": lambda v: wilson_ends(v, units, level),
    }
    return {name: _defined(value, known[name]) for name, value in overall.items()}, each


def _each(
    values: np.ndarray,
    ends: Callable[[float, float, float], Ends],
    counts: np.ndarray,
    level: float,
) -> list[Ends]:
    return [
        _defined(value, partial(_of_count, ends, float(count), level))
        for value, count in zip(values, counts, strict=True)
    ]


def _of_count(
    ends: Callable[[float, float, float], Ends], count: float, level: float, value: float
) -> Ends:
    return ends(value, count, level)


def _defined(value: float, ends: Callable[[float], Ends]) -> Ends:
    if math.isnan(value):
        return math.nan, math.nan
    low, high = ends(float(value))
    return min(low, float(value)), max(high, float(value))
