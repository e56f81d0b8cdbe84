import numpy as np

from simclr_tf.evaluation.active_learning import farthest_first, suggest

X = np.random.default_rng(0).normal(size=(40, 4))
UNIT = X / np.linalg.norm(X, axis=1, keepdims=True)
NONE = np.zeros(0, np.int64)


def plain(candidates: list[int], covered: list[int], count: int) -> list[int]:
    """Farthest first as a loop over everything."""
    chosen: list[int] = []
    for _ in range(count):
        centers = covered + chosen
        gaps = {
            row: min(1 - UNIT[row] @ UNIT[center] for center in centers)
            for row in candidates
            if row not in chosen
        }
        chosen.append(max(gaps, key=gaps.__getitem__))
    return chosen


def test_each_is_the_farthest_from_all_that_are_covered_or_chosen() -> None:
    candidates, covered = list(range(0, 40, 2)), [1, 3, 5]
    found = farthest_first(X, np.array(candidates), np.array(covered), 8)
    assert found.tolist() == plain(candidates, covered, 8)


def test_without_any_the_first_is_drawn_by_the_seed() -> None:
    rows = np.arange(40)
    found = farthest_first(X, rows, NONE, 6, seed=3)
    assert found[1:].tolist() == plain(list(rows), [int(found[0])], 5)
    assert found.tolist() == farthest_first(X, rows, NONE, 6, seed=3).tolist()
    firsts = {int(farthest_first(X, rows, NONE, 1, seed=seed)[0]) for seed in range(8)}
    assert len(firsts) > 1


def test_unlabeled_rows_come_first_far_from_the_labeled_ones() -> None:
    labeled = np.arange(40) >= 5
    found = suggest(X, labeled, 8)
    assert found[:5].tolist() == plain(list(range(5)), list(range(5, 40)), 5)
    assert found[5:].tolist() == plain(list(range(5, 40)), found[:5].tolist(), 3)
    assert len(suggest(X, labeled, 100)) == 40
    assert suggest(X, np.ones(40, bool), 3).shape == (3,)


def test_medoids_stand_for_clusters_the_largest_first() -> None:
    rng = np.random.default_rng(1)
    which = np.repeat([0, 1, 2], [12, 8, 4])
    x = np.eye(6)[which] + rng.normal(0, 0.05, (24, 6))
    found = suggest(x, np.zeros(24, bool), 3, "medoids")
    assert which[found].tolist() == [0, 1, 2]
    labeled = np.arange(24) < 12
    assert which[suggest(x, labeled, 2, "medoids")].tolist() == [1, 2]
