"""The points behind a classifier's curves, by scikit-learn."""

from dataclasses import dataclass

import numpy as np
from sklearn import metrics as sk

from simclr_tf.evaluation.metrics import CALIBRATION_BINS, calibration_bin


@dataclass(frozen=True)
class RocCurve:
    """Receiver operating characteristic of one class against the rest.

    Attributes:
        false_positive_rate: float64 [m], from 0 to 1.
        true_positive_rate: float64 [m], from 0 to 1.
        threshold: float64 [m], falling; a score of at least this counts as the class.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    threshold: np.ndarray


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall of one class against the rest.

    Attributes:
        precision: float64 [m].
        recall: float64 [m], falling to 0.
        threshold: float64 [m], rising; inf for the last point, where nothing is the class.
    """

    precision: np.ndarray
    recall: np.ndarray
    threshold: np.ndarray


@dataclass(frozen=True)
class CalibrationCurve:
    """Share of images whose most probable class is right, by its probability, in bins with images.

    Attributes:
        low: float64 [m], lower end of the bin, open.
        high: float64 [m], upper end, closed.
        confidence: float64 [m], mean probability of the most probable class.
        right: int64 [m], images for which that class is the true one.
        images: int64 [m], images in the bin.
    """

    low: np.ndarray
    high: np.ndarray
    confidence: np.ndarray
    right: np.ndarray
    images: np.ndarray


def roc_curve(positive: np.ndarray, score: np.ndarray) -> RocCurve | None:
    """The curve of one class; None without positives or without negatives.

    Args:
        positive: bool [n].
        score: float [n].
    """
    if not positive.any() or positive.all():
        return None
    return RocCurve(*sk.roc_curve(positive, score))


def precision_recall_curve(positive: np.ndarray, score: np.ndarray) -> PrecisionRecallCurve | None:
    """The curve of one class; None without positives.

    Args:
        positive: bool [n].
        score: float [n].
    """
    if not positive.any():
        return None
    precision, recall, threshold = sk.precision_recall_curve(positive, score)
    return PrecisionRecallCurve(precision, recall, np.append(threshold, np.inf))


def calibration_curve(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = CALIBRATION_BINS
) -> CalibrationCurve:
    """The bins behind `metrics.expected_calibration_error`.

    Args:
        labels: int [n].
        probabilities: float [n, K].
        bins: number of equally wide bins.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    which = calibration_bin(confidence, bins)
    images = np.bincount(which, minlength=bins)
    used = images > 0
    edges = np.arange(bins + 1) / bins
    return CalibrationCurve(
        edges[:-1][used],
        edges[1:][used],
        np.bincount(which, confidence, bins)[used] / images[used],
        np.bincount(which, right, bins)[used].astype(np.int64),
        images[used],
    )
