"""Intervals of all of a classifier's metrics at once, over one set of bootstrap samples.

The values are scikit-learn's (`metrics`). On the samples the same formulas are evaluated for many
samples together, from how often each image was drawn: scikit-learn, called sample by sample, takes
a hundred times as long. The tests hold the two against each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simclr_tf.evaluation import metrics
from simclr_tf.evaluation.degenerate import classifier_ends
from simclr_tf.evaluation.intervals import RESAMPLES, Interval, draw_counts, percentile_interval

_PER_CLASS = ("precision", "recall", "f1", "roc_auc", "average_precision")


@dataclass(frozen=True)
class MetricSamples:
    """Metrics on every bootstrap sample; nan where a sample leaves one undefined.

    Attributes:
        overall: name -> float64 [B], the names of `metrics.METRIC_NAMES`.
        per_class: name -> float64 [B, K], the names of `metrics.class_metrics`.
    """

    overall: dict[str, np.ndarray]
    per_class: dict[str, np.ndarray]


@dataclass(frozen=True)
class MetricIntervals:
    """Metrics with their intervals.

    Attributes:
        overall: name -> interval, in the order of `metrics.METRIC_NAMES`.
        per_class: name -> an interval a class.
    """

    overall: dict[str, Interval]
    per_class: dict[str, tuple[Interval, ...]]


def bootstrap_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    predicted: np.ndarray,
    *,
    groups: Sequence[str] | np.ndarray | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> MetricIntervals:
    """All metrics of a set of predictions with percentile intervals.

    The interval of the calibration error errs upwards: resampling adds noise to every bin, and the
    error counts noise of either sign. Where all samples give the same number, as of a predictor of
    one class, the interval is one in closed form (`degenerate`): it is never a point.

    Args:
        labels: int [n], n > 0, classes from 0.
        probabilities: float64 [n, K], rows sum to 1.
        predicted: int [n].
        groups: [n], which images belong together; None = each for itself.
        resamples: bootstrap samples; 0 = values alone, the ends of the intervals nan.
        level: of confidence.
        seed: of the resampling.

    Returns:
        The intervals.
    """
    overall = metrics.classification_metrics(labels, probabilities, predicted)
    per_class = metrics.class_metrics(labels, probabilities, predicted)
    samples = metric_samples(
        labels, probabilities, predicted, groups=groups, resamples=resamples, seed=seed
    )
    units = len(labels) if groups is None else len(np.unique(groups))
    ends, class_ends = classifier_ends(labels, predicted, overall, per_class, units, level)
    return MetricIntervals(
        {
            name: percentile_interval(value, samples.overall[name], level, ends[name])
            for name, value in overall.items()
        },
        {
            name: tuple(
                percentile_interval(
                    float(value), samples.per_class[name][:, k], level, class_ends[name][k]
                )
                for k, value in enumerate(values)
            )
            for name, values in per_class.items()
        },
    )


def metric_samples(
    labels: np.ndarray,
    probabilities: np.ndarray,
    predicted: np.ndarray,
    *,
    groups: Sequence[str] | np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> MetricSamples:
    """All metrics on bootstrap samples of the images.

    Two models scored on the same images with the same `resamples`, `seed` and `groups` are
    evaluated on the same samples: the differences of their samples are paired.

    Args:
        labels: int [n], n > 0.
        probabilities: float64 [n, K].
        predicted: int [n].
        groups: see `bootstrap_metrics`.
        resamples: bootstrap samples, B.
        seed: of the resampling.
    """
    rankings = [_Ranking(labels == k, probabilities[:, k]) for k in range(probabilities.shape[1])]
    parts = [
        _decisions(labels, predicted, counts, len(rankings))
        | _rankings(rankings, counts)
        | _probabilities(labels, probabilities, counts)
        for counts in draw_counts(len(labels), resamples, seed, groups=groups, labels=labels)
    ]
    classes = len(rankings)
    joined = {
        name: np.concatenate([part[name] for part in parts]) if parts else np.zeros((0, classes))
        for name in (*metrics.METRIC_NAMES, *(f"class_{name}" for name in _PER_CLASS))
    }
    return MetricSamples(
        {name: joined[name] for name in metrics.METRIC_NAMES},
        {name: joined[f"class_{name}"] for name in _PER_CLASS},
    )


def _decisions(
    labels: np.ndarray, predicted: np.ndarray, counts: np.ndarray, num_classes: int
) -> dict[str, np.ndarray]:
    """Metrics from how often each class occurs, is predicted and is hit: all [b, K] or [b]."""
    true = _sums(counts, labels, num_classes)
    given = _sums(counts, predicted, num_classes)
    hits = _sums(counts * (labels == predicted), labels, num_classes)
    n = true.sum(axis=1)
    right = hits.sum(axis=1)
    recall, f1 = _ratio(hits, true), _ratio(2 * hits, true + given)
    agreement = (true * given).sum(axis=1)
    spread = (n**2 - (true**2).sum(axis=1)) * (n**2 - (given**2).sum(axis=1))
    return {
        "accuracy": right / n,
        "balanced_accuracy": _nanmean(recall),
        "macro_f1": _nanmean(f1),
        "weighted_f1": (np.nan_to_num(f1) * true).sum(axis=1) / n,
        "cohen_kappa": np.nan_to_num(_ratio(right * n - agreement, n**2 - agreement)),
        "matthews_correlation": np.nan_to_num(_ratio(right * n - agreement, np.sqrt(spread))),
        "class_precision": _ratio(hits, given),
        "class_recall": recall,
        "class_f1": f1,
    }


class _Ranking:
    """One class against the rest, its images sorted by falling score once for all samples.

    Images of equal score form a tie. Both areas follow from how often images are drawn up to and
    within each tie that holds positives, so only these sums are made for every sample.
    """

    def __init__(self, positive: np.ndarray, score: np.ndarray) -> None:
        order = np.argsort(-score, kind="stable")
        falling, self.positive = score[order], positive[order]
        tie = np.concatenate([[0], np.cumsum(falling[1:] != falling[:-1])])
        start = np.searchsorted(tie, tie, side="left")
        end = np.searchsorted(tie, tie, side="right")
        # Segments: each tie that holds positives, and what lies between two such ties.
        starts, ends = np.unique(start[self.positive]), np.unique(end[self.positive])
        edges = np.unique(np.concatenate([[0], starts, ends]))
        self.edges = edges[edges < len(score)]
        self.ties = np.searchsorted(self.edges, starts)
        self.order, self.positive_order = order, order[self.positive]
        self.positive_edges = np.searchsorted(np.flatnonzero(self.positive), starts)

    def areas(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Area under the ROC curve and average precision of every sample, float64 [b] each."""
        if not self.positive.any():
            return np.full(len(counts), np.nan), np.full(len(counts), np.nan)
        segments = np.add.reduceat(counts[:, self.order], self.edges, axis=1)
        above = np.cumsum(segments, axis=1, dtype=np.float64)
        drawn = np.add.reduceat(counts[:, self.positive_order], self.positive_edges, axis=1)
        hits = np.cumsum(drawn, axis=1, dtype=np.float64)
        reached = above[:, self.ties]
        positives, n = hits[:, -1], above[:, -1]
        # Negatives at or above a tie, and strictly above it; a negative in the tie counts half.
        at_least = reached - hits
        in_tie = segments[:, self.ties] - drawn
        lost = (drawn * (at_least - 0.5 * in_tie)).sum(axis=1)
        precision = np.divide(hits, reached, out=np.zeros_like(hits), where=reached > 0)
        return (
            1 - _ratio(lost, positives * (n - positives)),
            _ratio((drawn * precision).sum(axis=1), positives),
        )


def _rankings(rankings: Sequence[_Ranking], counts: np.ndarray) -> dict[str, np.ndarray]:
    areas = [ranking.areas(counts) for ranking in rankings]
    auc, precision = (np.stack(columns, axis=1) for columns in zip(*areas, strict=True))
    return {
        "roc_auc": _nanmean(auc),
        "average_precision": _nanmean(precision),
        "class_roc_auc": auc,
        "class_average_precision": precision,
    }


def _probabilities(
    labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray
) -> dict[str, np.ndarray]:
    tiny = np.finfo(probabilities.dtype).eps  # where scikit-learn's log loss clips
    loss = -np.log(np.clip(probabilities[np.arange(len(labels)), labels], tiny, 1 - tiny))
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == labels) - confidence
    which = metrics.calibration_bin(confidence)
    n = counts.sum(axis=1)
    # Sums, not matrix products: those depend on the number of threads in the last digits.
    gaps = np.abs(_sums(counts * gap, which, metrics.CALIBRATION_BINS))
    return {
        "log_loss": (counts * loss).sum(axis=1) / n,
        "expected_calibration_error": gaps.sum(axis=1) / n,
    }


def _sums(counts: np.ndarray, which: np.ndarray, number: int) -> np.ndarray:
    """Sum of counts [b, n] over the images of each kind: float64 [b, number]."""
    rows = np.arange(len(counts))[:, np.newaxis] * number
    flat = np.bincount((rows + which).ravel(), counts.ravel(), minlength=len(counts) * number)
    return flat.reshape(len(counts), number)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, nan where the denominator is 0."""
    nowhere = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=nowhere, where=denominator > 0)


def _nanmean(values: np.ndarray) -> np.ndarray:
    """Mean of each row's defined values; nan where there are none."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))
