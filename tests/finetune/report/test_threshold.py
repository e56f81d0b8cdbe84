import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_curve

from finetune.report.results import Criterion, Decision, choose_threshold


def scores(seed: int, n: int = 80, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    return positive, np.round(0.3 * positive + 0.7 * rng.random(n), digits)


@pytest.mark.parametrize("seed", range(4))
def test_youden_reaches_the_best_point_of_the_roc_curve(seed: int) -> None:
    positive, score = scores(seed)
    threshold = choose_threshold(positive, score, "youden")
    fpr, tpr, _ = roc_curve(positive, score, drop_intermediate=False)
    taken = score >= threshold
    assert taken[positive].mean() - taken[~positive].mean() == pytest.approx((tpr - fpr).max())


@pytest.mark.parametrize("seed", range(4))
def test_f1_reaches_the_best_of_all_thresholds(seed: int) -> None:
    positive, score = scores(seed)
    threshold = choose_threshold(positive, score, "f1")
    best = max(f1_score(positive, score >= t) for t in np.unique(score))
    assert f1_score(positive, score >= threshold) == pytest.approx(best)


@pytest.mark.parametrize("criterion", ["youden", "f1"])
def test_separable_scores_are_cut_half_way(criterion: Criterion) -> None:
    positive = np.array([False, False, True, True])
    assert choose_threshold(positive, np.array([0.1, 0.2, 0.6, 0.9]), criterion) == 0.4


def test_of_equally_good_thresholds_the_nearest_to_a_half_is_taken() -> None:
    positive = np.array([False, True, False, True])
    score = np.array([0.1, 0.2, 0.55, 0.8])
    # Youden's J is 0.5 from 0.15 and from 0.675.
    assert choose_threshold(positive, score, "youden") == pytest.approx(0.675)


def test_one_class_gives_no_threshold() -> None:
    assert choose_threshold(np.ones(3, bool), np.array([0.1, 0.5, 0.7]), "youden") is None
    assert choose_threshold(np.zeros(3, bool), np.array([0.1, 0.5, 0.7]), "f1") is None


def test_decisions_by_threshold_of_either_class_and_by_the_highest_score() -> None:
    p = np.array([[0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
    assert Decision(0.4, 1).classes(p).tolist() == [1, 1, 0]
    assert Decision(0.65, 0).classes(p).tolist() == [1, 1, 0]
    assert Decision().classes(p).tolist() == [1, 0, 0]
