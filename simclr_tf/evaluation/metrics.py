"""Metrics of a classifier over a whole data set, by scikit-learn wherever it has them.

Nothing here is averaged over batches: labels, predicted classes and scores of all images go in, one
number comes out. Classes that neither occur nor are predicted count in no mean.
"""

import math
from collections.abc import Callable

import numpy as np
from sklearn import metrics as sk

CALIBRATION_BINS = 15


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64 [n, K] of logits float [n, K]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    likelihood = np.exp(shifted)
    return likelihood / likelihood.sum(axis=1, keepdims=True)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts of images by true and predicted class.

    Args:
        labels: int [n], from 0.
        predicted: int [n], from 0.
        num_classes: K.

    Returns:
        int64 [K, K]; rows = true, columns = predicted.
    """
    matrix: np.ndarray = sk.confusion_matrix(labels, predicted, labels=np.arange(num_classes))
    return matrix


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Share of images whose class was predicted; both int [n]."""
    return float(sk.accuracy_score(labels, predicted))


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean of the recalls of the classes that occur among the labels."""
    # scikit-learn's function of this name is this one, with a warning for every class that is
    # predicted but does not occur.
    present = np.unique(labels)
    return float(
        sk.recall_score(labels, predicted, labels=present, average="macro", zero_division=np.nan)
    )


def f1_scores(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """F1 of each class, float64 [K]; nan for one that neither occurs nor is predicted."""
    scores: np.ndarray = sk.f1_score(
        labels, predicted, labels=np.arange(num_classes), average=None, zero_division=np.nan
    )
    return scores


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean F1 of the classes that occur or are predicted."""
    return float(sk.f1_score(labels, predicted, average="macro"))


def weighted_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """F1 of the classes weighted by how many images each has."""
    return float(sk.f1_score(labels, predicted, average="weighted"))


def cohen_kappa(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Agreement beyond what the class frequencies alone would give; 0 if undefined."""
    if _single_class(labels, predicted):
        return 0.0
    return float(sk.cohen_kappa_score(labels, predicted))


def matthews_correlation(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Matthews correlation coefficient for any number of classes; 0 if undefined."""
    if _single_class(labels, predicted):
        return 0.0
    return float(sk.matthews_corrcoef(labels, predicted))


def roc_auc_scores(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class against the rest.

    Args:
        labels: int [n].
        scores: float [n, K].

    Returns:
        float64 [K]; nan for a class without positives or without negatives.
    """
    return _each_class(labels, scores, sk.roc_auc_score, needs_negatives=True)


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean of `roc_auc_scores` over the classes that have one; nan if there are none.

    For two classes whose scores add up to 1 this is the ordinary area.
    """
    return _mean_of_defined(roc_auc_scores(labels, scores))


def average_precision_scores(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision of each class against the rest, float64 [K]; nan without positives."""
    return _each_class(labels, scores, sk.average_precision_score, needs_negatives=False)


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean of `average_precision_scores` over the classes that occur."""
    return _mean_of_defined(average_precision_scores(labels, scores))


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative log likelihood in nats; probabilities float64 [n, K], rows sum to 1."""
    classes = np.arange(probabilities.shape[1])
    return float(sk.log_loss(labels, probabilities, labels=classes))


def calibration_bin(confidence: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Index of the bin that each probability falls in, of equally wide bins of [0, 1]: int64 [n].

    Bins are open below and closed above, as in Guo et al. 2017.
    """
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = CALIBRATION_BINS
) -> float:
    """Mean gap between confidence and accuracy in equal-width bins, weighted by their images.

    Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3. It looks at the class
    of the highest probability, whatever the decision threshold.

    Args:
        labels: int [n].
        probabilities: float [n, K].
        bins: number of bins of the highest probability.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    gaps = np.bincount(calibration_bin(confidence, bins), correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


# name -> (labels [n], predicted classes [n]) to a number.
DECISION_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "weighted_f1": weighted_f1,
    "cohen_kappa": cohen_kappa,
    "matthews_correlation": matthews_correlation,
}

# name -> (labels [n], probabilities [n, K]) to a number; no decision has been taken yet.
SCORE_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "roc_auc": roc_auc,
    "average_precision": average_precision,
    "log_loss": log_loss,
    "expected_calibration_error": expected_calibration_error,
}

METRIC_NAMES = (*DECISION_METRICS, *SCORE_METRICS)


def classification_metrics(
    labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray | None = None
) -> dict[str, float]:
    """All metrics for one set of predictions.

    Args:
        labels: int [n], n > 0, classes from 0.
        probabilities: float64 [n, K], rows sum to 1.
        predicted: int [n]; the class of the highest probability if None.

    Returns:
        name -> value, in the order of `METRIC_NAMES`.

    Raises:
        ValueError: no images, a label outside the columns, or probabilities that do not add up.
    """
    if len(labels) == 0 or len(labels) != len(probabilities):
        raise ValueError("metrics need as many probabilities as labels, and at least one")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError("a label has no column among the probabilities")
    if not np.allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-8):
        raise ValueError("rows of the probabilities must sum to 1")
    if predicted is None:
        predicted = probabilities.argmax(axis=1)
    decided = {name: metric(labels, predicted) for name, metric in DECISION_METRICS.items()}
    return decided | {name: f(labels, probabilities) for name, f in SCORE_METRICS.items()}


def class_metrics(
    labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray
) -> dict[str, np.ndarray]:
    """Metrics of every class against the rest.

    Args:
        labels: int [n].
        probabilities: float [n, K].
        predicted: int [n].

    Returns:
        `precision`, `recall`, `f1`, `roc_auc`, `average_precision`: float64 [K] each, nan where
        undefined (precision of a class that is never predicted, recall of one that never occurs).
    """
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, predicted, labels=np.arange(probabilities.shape[1]), zero_division=np.nan
    )
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "roc_auc": roc_auc_scores(labels, probabilities),
        "average_precision": average_precision_scores(labels, probabilities),
    }


def effective_rank(features: np.ndarray) -> float:
    """Effective number of directions that features use: from 1 (collapsed) to min(n, d).

    The exponential of the entropy of the normalised singular values (Roy and Vetterli 2007,
    The effective rank) of the features after subtracting their mean.

    Args:
        features: float [n, d].

    Returns:
        The effective rank; 1 if all features are equal.
    """
    centerd = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    values = np.linalg.svd(centerd, compute_uv=False)
    scale = np.abs(features).max(initial=0.0) * math.sqrt(features.size)
    if values.sum() <= 1e-7 * scale or scale == 0:
        return 1.0
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _single_class(labels: np.ndarray, predicted: np.ndarray) -> bool:
    """True if only one class occurs and is predicted, of which scikit-learn would warn."""
    return len(np.union1d(labels, predicted)) == 1


def _each_class(
    labels: np.ndarray,
    scores: np.ndarray,
    metric: Callable[[np.ndarray, np.ndarray], float],
    *,
    needs_negatives: bool,
) -> np.ndarray:
    values = np.full(scores.shape[1], np.nan)
    for column in range(scores.shape[1]):
        positive = labels == column
        if positive.any() and not (needs_negatives and positive.all()):
            values[column] = metric(positive, scores[:, column])
    return values


def _mean_of_defined(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
