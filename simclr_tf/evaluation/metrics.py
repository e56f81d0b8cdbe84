"""Metrics of a classifier over a whole data set, from its scores.

Nothing here is averaged over batches: scores of all images go in, one number comes out.
"""

import math
from collections.abc import Callable

import numpy as np
from sklearn.metrics import roc_auc_score

_ECE_BINS = 15
_TINY = 1e-12


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts of images by true and predicted class.

    Args:
        labels: int [n], from 0.
        predictions: int [n], from 0.
        num_classes: K.

    Returns:
        int64 [K, K]; rows = true, columns = predicted.
    """
    flat = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    """Share of images whose highest score is their class.

    Args:
        labels: int [n].
        scores: float [n, K].
    """
    return float((scores.argmax(axis=1) == labels).mean())


def balanced_accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean of the recalls of the classes that occur among the labels."""
    matrix = _confusion(labels, scores)
    support = matrix.sum(axis=1)
    present = support > 0
    return float((np.diag(matrix)[present] / support[present]).mean())


def f1_scores(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """F1 of each class, float64 [K]; nan for one that neither occurs nor is predicted."""
    matrix = _confusion(labels, scores)
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    hits = 2.0 * np.diag(matrix)
    return np.divide(hits, total, out=np.full(len(matrix), np.nan), where=total > 0)


def macro_f1(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean F1 of the classes that occur or are predicted."""
    return float(np.nanmean(f1_scores(labels, scores)))


def weighted_f1(labels: np.ndarray, scores: np.ndarray) -> float:
    """F1 of the classes weighted by how many images each has."""
    support = np.bincount(labels, minlength=scores.shape[1])
    each = np.nan_to_num(f1_scores(labels, scores))
    return float((each * support).sum() / support.sum())


def cohen_kappa(labels: np.ndarray, scores: np.ndarray) -> float:
    """Agreement beyond what the class frequencies alone would give; 0 if undefined."""
    matrix = _confusion(labels, scores) / len(labels)
    expected = float(matrix.sum(axis=0) @ matrix.sum(axis=1))
    return 0.0 if expected >= 1 else (float(np.trace(matrix)) - expected) / (1 - expected)


def matthews_correlation(labels: np.ndarray, scores: np.ndarray) -> float:
    """Matthews correlation coefficient for any number of classes; 0 if undefined.

    Gorodkin 2004, Comparing two K-category assignments by a K-category correlation coefficient.
    """
    matrix = _confusion(labels, scores).astype(np.float64)
    n = matrix.sum()
    true, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    spread = (n**2 - (true**2).sum()) * (n**2 - (predicted**2).sum())
    return float((np.trace(matrix) * n - true @ predicted) / math.sqrt(spread)) if spread else 0.0


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, one class against the rest, mean over classes.

    Only classes with both positives and negatives count; nan if there are none. For two
    classes this is the ordinary area.
    """
    areas = [
        roc_auc_score(labels == column, scores[:, column])
        for column in range(scores.shape[1])
        if 0 < (labels == column).sum() < len(labels)
    ]
    return float(np.mean(areas)) if areas else math.nan


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative log likelihood in nats; probabilities float [n, K], rows sum to 1."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, _TINY)).mean())


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = _ECE_BINS
) -> float:
    """How far confidence and accuracy lie apart, weighted over equal-width bins.

    Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.

    Args:
        labels: int [n].
        probabilities: float [n, K].
        bins: number of bins of the highest probability.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    # Bins are open below and closed above, as in the paper.
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(which, correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "weighted_f1": weighted_f1,
    "cohen_kappa": cohen_kappa,
    "matthews_correlation": matthews_correlation,
    "roc_auc": roc_auc,
    "log_loss": log_loss,
    "expected_calibration_error": expected_calibration_error,
}


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """All of `METRICS` for one set of predictions.

    Args:
        labels: int [n], n > 0, classes from 0.
        probabilities: float [n, K], rows sum to 1.

    Returns:
        name -> value.

    Raises:
        ValueError: no images, a label outside the columns, or probabilities that do not add up.
    """
    if len(labels) == 0 or len(labels) != len(probabilities):
        raise ValueError("metrics need as many probabilities as labels, and at least one")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError("a label has no column among the probabilities")
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ValueError("rows of the probabilities must sum to 1")
    return {name: metric(labels, probabilities) for name, metric in METRICS.items()}


def effective_rank(features: np.ndarray) -> float:
    """How many directions the features use: from 1 (collapsed) to min(n, d).

    The exponential of the entropy of the normalised singular values (Roy and Vetterli 2007,
    The effective rank) of the features after subtracting their mean.

    Args:
        features: float [n, d].

    Returns:
        The effective rank; 1 if all features are equal.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    values = np.linalg.svd(centred, compute_uv=False)
    scale = np.abs(features).max(initial=0.0) * math.sqrt(features.size)
    if values.sum() <= 1e-7 * scale or scale == 0:
        return 1.0
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _confusion(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return confusion_matrix(labels, scores.argmax(axis=1), scores.shape[1])
