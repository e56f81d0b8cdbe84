"""Linear probe: multinomial logistic regression on frozen features."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from threadpoolctl import threadpool_limits

DEFAULT_STRENGTHS = tuple(10.0**power for power in range(-4, 2))
_FINE_STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-8, 3))
_FALLBACK_STRENGTH = 1e-2  # where a class has a single example nothing can be held out
_VALIDATION_SHARE = 0.2
_ENOUGH_A_CLASS = 20  # from here on one held-out part is steady enough
_FEW = 2**21  # numbers up to which all folds are held out where a score chooses
_LEAST_LIKELIHOOD = 1e-12
_MAX_ITERATIONS = 1000
_SMALL = 2**22  # numbers


Score = Callable[[np.ndarray, np.ndarray], float]
"""Of classes int [n] and their probabilities float64 [n, classes]; larger is better."""


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        mean: float64 [d], of the training features.
        scale: float64 [d], their standard deviation (1 where they do not vary).
        weights: float64 [d, num_classes].
        bias: float64 [num_classes]; -inf for classes without training examples.
        strength: the inverse regularisation chosen (scikit-learn's C).
        temperature: what weights and bias were divided by.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    strength: float
    temperature: float = 1.0

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
    strengths: Sequence[float] = (),
    seed: int = 0,
    balanced: bool = False,
    score: Score | None = None,
) -> LinearProbe:
    """Fits a probe; the regularisation is chosen on held-out parts of the training features.

    With 20 or more examples of every class a fifth is held out once, with fewer there are up to
    five folds. The probe is then fitted to all training features. Test data have no part in it.

    The likelihood, which chooses by default, asks for more regularisation than accuracy does: it
    punishes predictions that are too sure, and those are mended by a temperature. Where a score
    chooses, it therefore chooses among finer steps and always over folds (unless the features are
    many), each candidate by the mean of its score and its neighbors' (weights 1, 2, 1), which
    evens out chance, and of equals the one of the higher likelihood. Weights and bias are then
    divided by the temperature that suits the held-out parts best, which moves no decision.

    Args:
        train_x: float [n, d], finite.
        train_y: int [n], classes from 0; at least two of them.
        num_classes: columns of the probabilities; the largest class + 1 if None.
        strengths: candidates for scikit-learn's C, on standardised features, in order; empty =
            powers of ten from 1e-4 to 10, and what lies half between them for a score.
        seed: of the held-out parts.
        balanced: every class counts the same, in the fit and in the choice of the regularisation:
            for metrics in which it does. Without it few features of unequal classes end in a probe
            that says the most frequent class of every image.
        score: chooses the regularisation instead of the likelihood.

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
    candidates = tuple(strengths) or (_FINE_STRENGTHS if score else DEFAULT_STRENGTHS)
    held_out = _hold_out(features, train_y, candidates, seed, balanced, folds=bool(score))
    if held_out is None:
        strength, temperature = _FALLBACK_STRENGTH, 1.0
    elif score is None:
        strength, temperature = candidates[int(held_out.losses().argmin())], 1.0
    else:
        best = held_out.best_by(score)
        strength, temperature = candidates[best], held_out.temperature(best)
    if len(candidates) == 1:
        strength = candidates[0]
    probe = _fit(features, train_y, strength, num_classes, balanced)
    return replace(
        probe,
        weights=probe.weights / temperature,
        bias=probe.bias / temperature,
        temperature=temperature,
    )


@dataclass(frozen=True)
class _HeldOut:
    """Predictions for rows that the probe was not fitted to.

    Attributes:
        labels: int [n].
        probabilities: float64 [candidates, n, classes].
        weights: float64 [n], of the rows in the likelihood.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    weights: np.ndarray

    def losses(self) -> np.ndarray:
        """Weighted negative log likelihood of each candidate, float64 [candidates]."""
        return np.array([self._loss(np.log(self._bounded(p))) for p in self.probabilities])

    def best_by(self, score: Score) -> int:
        """Number of the candidate with the best score, its neighbors' reckoned in."""
        scores = [score(self.labels, p) for p in self.probabilities]
        padded = np.pad(np.nan_to_num(scores), 1, mode="edge")
        smooth = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        best = smooth >= smooth.max() - 1e-9
        return int(np.where(best, self.losses(), np.inf).argmin())

    def temperature(self, candidate: int) -> float:
        """What a candidate's logits must be divided by to be most likely, 0.1 to 100."""
        logits = np.log(self._bounded(self.probabilities[candidate]))

        def loss(log_temperature: float) -> float:
            divided = logits / np.exp(log_temperature)
            total = np.logaddexp.reduce(divided, axis=1, keepdims=True)
            return self._loss(divided - total)

        found = minimize_scalar(loss, bounds=np.log([0.1, 100.0]), method="bounded")
        return float(np.exp(found.x))

    def _loss(self, log_probabilities: np.ndarray) -> float:
        chosen = log_probabilities[np.arange(len(self.labels)), self.labels]
        return -float((self.weights * chosen).sum())

    @staticmethod
    def _bounded(probabilities: np.ndarray) -> np.ndarray:
        return np.maximum(probabilities, _LEAST_LIKELIHOOD)


def _hold_out(
    features: np.ndarray,
    labels: np.ndarray,
    strengths: Sequence[float],
    seed: int,
    balanced: bool,
    folds: bool,
) -> _HeldOut | None:
    """Predictions with every candidate; None if nothing can be held out or there is no choice."""
    counts = np.bincount(labels)
    fewest = int(counts[counts > 0].min())
    if fewest < 2 or len(strengths) == 1:
        return None
    if fewest >= _ENOUGH_A_CLASS and not (folds and features.size <= _FEW):
        splitter = StratifiedShuffleSplit(1, test_size=_VALIDATION_SHARE, random_state=seed)
    else:
        splitter = StratifiedKFold(min(5, fewest), shuffle=True, random_state=seed)
    num_classes = len(counts)
    rows, probabilities = [], []
    for fit_rows, held_out in splitter.split(features, labels):
        rows.append(held_out)
        probes = (
            _fit(features[fit_rows], labels[fit_rows], strength, num_classes, balanced)
            for strength in strengths
        )
        probabilities.append([probe.predict_proba(features[held_out]) for probe in probes])
    known = labels[np.concatenate(rows)]
    weights = 1 / np.maximum(counts, 1) if balanced else np.ones(num_classes)
    return _HeldOut(known, np.concatenate(probabilities, axis=1), weights[known])


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
