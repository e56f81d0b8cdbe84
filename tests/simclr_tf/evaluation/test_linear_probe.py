import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from simclr_tf.evaluation import linear_probe
from simclr_tf.evaluation.linear_probe import fit_linear_probe
from simclr_tf.evaluation.metrics import softmax


def clusters(n: int, classes: int = 4, d: int = 12, seed: int = 0) -> tuple:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centers = np.random.default_rng(99).normal(size=(classes, d))
    x = 5 + 3 * (centers[y] + 1.5 * rng.normal(size=(n, d)))
    return x.astype(np.float32), y


@pytest.mark.parametrize("classes", [2, 4])
def test_equals_sklearn_at_a_fixed_strength(classes: int) -> None:
    x, y = clusters(200, classes)
    test_x, _ = clusters(50, classes, seed=1)
    probe = fit_linear_probe(x, y, strengths=[0.1])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    model.fit(x.astype(np.float64), y)
    np.testing.assert_allclose(
        probe.predict_proba(test_x), model.predict_proba(test_x.astype(np.float64)), atol=1e-6
    )
    assert probe.strength == 0.1


def unequal(per_class: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes of unequal size that two of many features tell apart, and not well."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(per_class)), per_class)
    x = rng.normal(size=(len(y), 150))
    x[:, :3] += 2 * np.eye(3)[y]
    return x, y


def test_classes_that_count_the_same_are_not_lost_to_the_most_frequent_one() -> None:
    x, y = unequal((60, 20, 20), seed=0)
    test_x, test_y = unequal((200, 200, 200), seed=1)
    found = {b: fit_linear_probe(x, y, balanced=b).predict(test_x) for b in (False, True)}
    assert (found[False] == 0).mean() > 0.9  # one class for nearly all images
    assert balanced_accuracy_score(test_y, found[True]) > 0.5
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced"))
    model.fit(x, y)
    probe = fit_linear_probe(x, y, strengths=[0.1], balanced=True)
    np.testing.assert_allclose(probe.predict_proba(test_x), model.predict_proba(test_x), atol=1e-4)


def test_weak_regularisation_is_avoided_where_it_hurts() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    x = rng.normal(size=(120, 200))
    x[:, 0] += 2.5 * y
    probe = fit_linear_probe(x, y, strengths=[1e-3, 1e3])
    assert probe.strength == 1e-3


@pytest.mark.parametrize(("per_class", "at_least"), [(1, 0.3), (2, 0.4), (5, 0.5), (30, 0.65)])
def test_any_number_of_labels_a_class(per_class: int, at_least: float) -> None:
    x, y = clusters(per_class * 4)
    test_x, test_y = clusters(400, seed=1)
    probe = fit_linear_probe(x, y)
    assert (probe.predict(test_x) == test_y).mean() > at_least


def test_strength_is_chosen_on_training_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clusters(200)
    seen: list[int] = []
    fit = linear_probe._fit

    def spy(features: np.ndarray, *rest: object) -> object:
        seen.append(len(features))
        return fit(features, *rest)

    monkeypatch.setattr(linear_probe, "_fit", spy)
    fit_linear_probe(x, y, strengths=[0.01, 0.1])
    assert seen == [160, 160, 200]


def noisy(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Many weak features: accuracy wants less regularisation than the likelihood."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    centers = 0.25 * np.random.default_rng(7).normal(size=(4, 200))
    return centers[y] + rng.normal(size=(n, 200)), y


def right(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


def test_a_score_chooses_over_folds_and_a_temperature_mends_the_likelihood() -> None:
    x, y = noisy(160, seed=0)
    test_x, test_y = noisy(2000, seed=1)
    probe = fit_linear_probe(x, y, score=right)
    powers = [10.0 ** (p / 2) for p in range(-8, 3)]
    # The same with scikit-learn alone.
    logits = []
    for strength in powers:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        logits.append(cross_val_predict(model, x, y, cv=folds, method="decision_function"))
    scores = [accuracy_score(y, found.argmax(axis=1)) for found in logits]
    padded = [scores[0], *scores, scores[-1]]
    smooth = np.round(np.convolve(padded, [0.25, 0.5, 0.25], "valid"), 9)
    losses = [log_loss(y, softmax(found)) for found in logits]
    best = max(range(len(powers)), key=lambda i: (smooth[i], -losses[i]))
    assert probe.strength == pytest.approx(powers[best])
    grid = np.exp(np.linspace(np.log(0.1), np.log(100), 500))
    wanted = grid[np.argmin([log_loss(y, softmax(logits[best] / t)) for t in grid])]
    assert probe.temperature == pytest.approx(wanted, rel=0.02)
    plain = fit_linear_probe(x, y, strengths=[probe.strength])
    np.testing.assert_array_equal(probe.predict(test_x), plain.predict(test_x))
    found, before = (log_loss(test_y, p.predict_proba(test_x)) for p in (probe, plain))
    assert found < before


def test_a_score_never_sees_more_than_a_fifth_of_many_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = clusters(200)
    monkeypatch.setattr(linear_probe, "_FEW", x.size - 1)
    seen: list[int] = []
    fit_linear_probe(x, y, score=lambda labels, _: seen.append(len(labels)) or 0.0)
    assert set(seen) == {40}


def test_the_same_seed_gives_the_same_probe() -> None:
    x, y = clusters(60)
    first, second = fit_linear_probe(x, y, seed=3), fit_linear_probe(x, y, seed=3)
    np.testing.assert_array_equal(first.weights, second.weights)


def test_classes_without_examples_have_probability_zero() -> None:
    x, y = clusters(80)
    y = np.where(y == 1, 3, y)
    probe = fit_linear_probe(x, y, num_classes=6)
    likelihood = probe.predict_proba(x)
    assert likelihood.shape == (80, 6)
    np.testing.assert_array_equal(likelihood[:, [1, 4, 5]], 0)
    np.testing.assert_allclose(likelihood.sum(axis=1), 1)


def test_constant_features_do_no_harm() -> None:
    x, y = clusters(80)
    x = np.concatenate([x, np.full((80, 2), 7.0)], axis=1)
    likelihood = fit_linear_probe(x, y).predict_proba(x)
    assert np.isfinite(likelihood).all()


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [
        (np.ones((4, 2)), np.array([0, 1, -1, 0]), "labels"),
        (np.ones((4, 2)), np.zeros(4, int), "two classes"),
        (np.full((4, 2), np.nan), np.arange(4), "finite"),
    ],
)
def test_unusable_features_are_refused(x: np.ndarray, y: np.ndarray, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        fit_linear_probe(x, y)
