import numpy as np

from simclr_tf.evaluation.intervals import draw_counts


def draws(n: int, resamples: int = 400, seed: int = 0, **how: object) -> np.ndarray:
    return np.concatenate(list(draw_counts(n, resamples, seed, **how)))  # type: ignore[arg-type]


def test_every_sample_holds_as_many_images_as_the_data() -> None:
    counts = draws(50)
    assert counts.shape == (400, 50)
    assert (counts.sum(axis=1) == 50).all()
    # Each image is in a sample with probability 1 - (1 - 1/n)^n.
    assert abs((counts > 0).mean() - (1 - (1 - 1 / 50) ** 50)) < 0.01


def test_images_of_a_group_are_drawn_together() -> None:
    groups = np.array(["a", "b", "a", "c", "b", "a"])
    counts = draws(6, groups=groups)
    for name in "abc":
        members = counts[:, groups == name]
        assert (members == members[:, :1]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert set(counts[:, 3]) == {0, 1, 2, 3}


def test_units_are_drawn_within_their_class() -> None:
    labels = np.repeat([0, 1, 2], [30, 10, 2])
    counts = draws(42, labels=labels)
    for k, size in enumerate([30, 10, 2]):
        assert (counts[:, labels == k].sum(axis=1) == size).all()
    assert set(counts[:, 41]) == {0, 1, 2}


def test_groups_of_several_classes_are_drawn_among_themselves() -> None:
    #                 pure 0    mixed         pure 1    mixed
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    counts = draws(8, groups=groups, labels=labels)
    assert (counts[:, [0, 4]] == 1).all()
    assert (counts[:, 2] + counts[:, 6] == 2).all()
    assert set(counts[:, 2]) == {0, 1, 2}


def test_the_seed_decides_and_nothing_else() -> None:
    np.testing.assert_array_equal(draws(30, seed=3), draws(30, seed=3))
    assert (draws(30, seed=3) != draws(30, seed=4)).any()
