"""The decision threshold of two classes: chosen on validation, never on test."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Criterion = Literal["youden", "f1", "fixed"]

CRITERIA: dict[Criterion, str] = {
    "youden": "maximal Youden's J (true positive rate - false positive rate)",
    "f1": "maximal F1 of the positive class",
    "fixed": "given, not chosen",
}


@dataclass(frozen=True)
class Decision:
    """How scores become classes.

    Attributes:
        threshold: An image with at least this score of the positive class is of that class; None =
            the class with the highest score (more than two classes).
        positive: Position of the positive class; -1 without a threshold.
        criterion: How the threshold was chosen.
        chosen_on: Split that it was chosen on; "" = none.
    """

    threshold: float | None = None
    positive: int = -1
    criterion: Criterion = "fixed"
    chosen_on: str = ""

    def classes(self, scores: np.ndarray) -> np.ndarray:
        """Predicted classes int64 [n] of scores float64 [n, K]."""
        if self.threshold is None:
            return scores.argmax(axis=1)
        return np.where(
            scores[:, self.positive] >= self.threshold, self.positive, 1 - self.positive
        )


def choose_threshold(positive: np.ndarray, score: np.ndarray, criterion: Criterion) -> float | None:
    """The threshold that serves a criterion best.

    Candidates lie half-way between neighbouring scores, so that images like those seen stay on
    their side; of equally good ones the nearest to 0.5 is taken.

    Args:
        positive: bool [n], whether an image is of the positive class.
        score: float [n], its score of that class, in [0, 1].
        criterion: `youden` or `f1`.

    Returns:
        The threshold; None where there are no images of one of the two classes.
    """
    if not positive.any() or positive.all():
        return None
    values, which = np.unique(score, return_inverse=True)
    # Counts at or above every distinct score; the lowest candidate takes all images.
    hits = np.bincount(which, positive)[::-1].cumsum()[::-1]
    taken = np.bincount(which)[::-1].cumsum()[::-1]
    negatives, positives = (~positive).sum(), positive.sum()
    if criterion == "youden":
        # In whole numbers, so that equally good thresholds are equal.
        quality = hits * negatives - (taken - hits) * positives
    else:
        quality = 2 * hits / (taken + positives)
    middle = np.concatenate([values[:1], (values[:-1] + values[1:]) / 2])
    best = np.flatnonzero(quality == quality.max())
    return float(middle[best[np.abs(middle[best] - 0.5).argmin()]])
