"""Nearest-neighbour classification of features: what a representation knows without training."""

from typing import Literal

import numpy as np

from simclr_tf.evaluation.neighbors import Metric, closest

_CHUNK_ELEMENTS = 1 << 25  # similarities held at a time: 128 MiB of float32
_TEMPERATURE = 0.07


def knn_scores(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    *,
    k: int = 10,
    num_classes: int | None = None,
    metric: Metric = "cosine",
    weights: Literal["uniform", "similarity"] = "uniform",
    leave_one_out: bool = False,
) -> np.ndarray:
    """Share of each class among the k nearest training features.

    Args:
        train_x: float [n, d].
        train_y: int [n], classes from 0.
        test_x: float [m, d].
        k: neighbours; fewer if there are fewer training features.
        num_classes: columns of the result; the largest class + 1 if None.
        metric: `cosine` compares directions (rows of zeros are unlike everything),
            `euclidean` distances.
        weights: `uniform`, one vote a neighbour; `similarity`, exp(similarity / 0.07) with
            cosine (Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance
            Discrimination, section 3.4).
        leave_one_out: test_x is train_x, and no feature may be its own neighbour.

    Returns:
        float64 [m, num_classes], rows summing to 1.

    Raises:
        ValueError: no training features, negative labels, or weights that need cosine.
    """
    if len(train_x) == 0 or train_y.min() < 0:
        raise ValueError("k-NN needs labelled training features: leave out those without label")
    if weights == "similarity" and metric != "cosine":
        raise ValueError("weights='similarity' needs metric='cosine'")
    columns = int(train_y.max()) + 1 if num_classes is None else num_classes
    train, test = train_x.astype(np.float32), test_x.astype(np.float32)
    scores = np.empty((len(test), columns))
    step = max(1, _CHUNK_ELEMENTS // len(train))
    blocks = closest(test, train, k, metric=metric, leave_one_out=leave_one_out, block=step)
    for start, (nearest, similarity) in zip(range(0, len(test), step), blocks, strict=True):
        votes = np.ones(nearest.shape)
        if weights == "similarity":
            close = similarity.astype(np.float64)
            votes = np.exp((close - close[:, :1]) / _TEMPERATURE)
        scores[start : start + step] = _tally(train_y[nearest], votes, columns)
    return scores


def knn_predict(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    k: int = 10,
    *,
    metric: Metric = "cosine",
    weights: Literal["uniform", "similarity"] = "uniform",
) -> np.ndarray:
    """The class most frequent among the k nearest; ties go to the smallest class.

    Args:
        train_x: float [n, d].
        train_y: int [n].
        test_x: float [m, d].
        k: neighbours.
        metric: see `knn_scores`.
        weights: see `knn_scores`.

    Returns:
        int64 [m].
    """
    scores = knn_scores(train_x, train_y, test_x, k=k, metric=metric, weights=weights)
    return scores.argmax(axis=1)


def _tally(classes: np.ndarray, votes: np.ndarray, columns: int) -> np.ndarray:
    """Adds up votes [m, k] by class [m, k] into shares [m, columns]."""
    rows = np.arange(len(classes))[:, None] * columns
    flat = np.bincount((rows + classes).ravel(), votes.ravel(), len(classes) * columns)
    return flat.reshape(len(classes), columns) / votes.sum(axis=1, keepdims=True)
