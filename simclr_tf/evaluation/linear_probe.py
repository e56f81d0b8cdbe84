"""Linear probe: multinomial logistic regression on frozen features."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from threadpoolctl import threadpool_limits

DEFAULT_STRENGTHS = tuple(10.0**power for power in range(-4, 2))
_FALLBACK_STRENGTH = 1e-2  # where a class has a single example nothing can be held out
_VALIDATION_SHARE = 0.2
_ENOUGH_A_CLASS = 20  # from here on one held-out part is steady enough
_MAX_ITERATIONS = 1000
_SMALL = 2**22  # numbers


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        mean: float64 [d], of the training features.
        scale: float64 [d], their standard deviation (1 where they do not vary).
        weights: float64 [d, num_classes].
        bias: float64 [num_classes]; -inf for classes without training examples.
        strength: the inverse regularisation chosen (scikit-learn's C).
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    strength: float

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities float64 [n, num_classes] of features float [n, d]."""
        logits = (features - self.mean) / self.scale @ self.weights + self.bias
        likelihood = np.exp(logits - logits.max(axis=1, keepdims=True))
        return likelihood / likelihood.sum(axis=1, keepdims=True)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Classes int64 [n] of features float [n, d]."""
        return self.predict_proba(features).argmax(axis=1)


def fit_linear_probe(
    train_x: np.ndarray,
    train_y: np.ndarray,
    *,
    num_classes: int | None = None,
    strengths: Sequence[float] = DEFAULT_STRENGTHS,
    seed: int = 0,
    balanced: bool = False,
) -> LinearProbe:
    """Fits a probe; the regularisation is chosen on held-out parts of the training features.

    With 20 or more examples of every class a fifth is held out once, with fewer there are up to
    five folds. The probe is then fitted to all training features. Test data have no part in it.

    Args:
        train_x: float [n, d], finite.
        train_y: int [n], classes from 0; at least two of them.
        num_classes: columns of the probabilities; the largest class + 1 if None.
        strengths: candidates for scikit-learn's C, on standardised features.
        seed: of the held-out parts.
        balanced: every class counts the same, in the fit and in the choice of the regularisation:
            for metrics in which it does. Without it few features of unequal classes end in a probe
            that says the most frequent class of every image.

    Returns:
        The probe.

    Raises:
        ValueError: fewer than two classes, unlabelled rows or features that are not finite.
    """
    if len(train_y) == 0 or train_y.min() < 0:
        raise ValueError("a linear probe needs labels: leave out the images without one")
    if len(np.unique(train_y)) < 2:
        raise ValueError("a linear probe needs examples of two classes at least")
    if not np.isfinite(train_x).all():
        raise ValueError("features are not finite: the encoder has diverged")
    features = train_x.astype(np.float64)
    strength = _choose_strength(features, train_y, strengths, seed, balanced)
    return _fit(features, train_y, strength, num_classes, balanced)


def _choose_strength(
    features: np.ndarray,
    labels: np.ndarray,
    strengths: Sequence[float],
    seed: int,
    balanced: bool,
) -> float:
    """The candidate with the best held-out likelihood."""
    if len(strengths) == 1:
        return strengths[0]
    counts = np.bincount(labels)
    fewest = int(counts[counts > 0].min())
    if fewest < 2:
        return _FALLBACK_STRENGTH
    if fewest >= _ENOUGH_A_CLASS:
        splitter = StratifiedShuffleSplit(1, test_size=_VALIDATION_SHARE, random_state=seed)
    else:
        splitter = StratifiedKFold(min(5, fewest), shuffle=True, random_state=seed)
    num_classes = len(counts)
    weights = 1 / np.maximum(counts, 1) if balanced else np.ones(num_classes)
    losses = np.zeros(len(strengths))
    for fit_rows, held_out in splitter.split(features, labels):
        for column, strength in enumerate(strengths):
            probe = _fit(features[fit_rows], labels[fit_rows], strength, num_classes, balanced)
            likelihood = probe.predict_proba(features[held_out])
            chosen = likelihood[np.arange(len(held_out)), labels[held_out]]
            log_likelihood = np.log(np.maximum(chosen, 1e-12))
            losses[column] -= (weights[labels[held_out]] * log_likelihood).sum()
    return strengths[int(losses.argmin())]


def _fit(
    features: np.ndarray,
    labels: np.ndarray,
    strength: float,
    num_classes: int | None,
    balanced: bool,
) -> LinearProbe:
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-8 * (1 + np.abs(mean)), scale, 1.0)
    weights = "balanced" if balanced else None
    model = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS, class_weight=weights)
    # BLAS spends more on handing small products to its threads than on computing them.
    threads = 1 if features.size < _SMALL else None
    with warnings.catch_warnings(), threadpool_limits(threads, user_api="blas"):
        # Nearly separable features with a weak penalty have their optimum far out; where the
        # iteration stops there does not matter to the choice.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((features - mean) / scale, labels)
    columns = int(labels.max()) + 1 if num_classes is None else num_classes
    matrix, bias = np.zeros((features.shape[1], columns)), np.full(columns, -np.inf)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        zero = np.zeros_like(coefficients)
        coefficients = np.concatenate([zero, coefficients])
        intercepts = np.concatenate([[0.0], intercepts])
    matrix[:, model.classes_] = coefficients.T
    bias[model.classes_] = intercepts
    return LinearProbe(mean, scale, matrix, bias, strength)
