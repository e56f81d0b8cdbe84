import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.manifest.allocation import apportion_table, deal, fill, misfit


def squared_differences(counts: np.ndarray, wanted: np.ndarray, chosen: np.ndarray) -> int:
    """The misfit by a plain loop."""
    total = 0
    for split in range(wanted.shape[1]):
        cells = [0] * wanted.shape[0]
        for unit, home in enumerate(chosen):
            if home == split:
                cells = [cell + int(own) for cell, own in zip(cells, counts[unit], strict=True)]
        total += sum((int(w) - c) ** 2 for w, c in zip(wanted[:, split], cells, strict=True))
        total += (int(wanted[:, split].sum()) - sum(cells)) ** 2
    return total


def least_misfit(counts: np.ndarray, wanted: np.ndarray) -> int:
    """Of all ways to deal the units out that leave no split empty."""
    splits = range(wanted.shape[1])
    return min(
        misfit(counts, wanted, np.array(chosen))
        for chosen in itertools.product(splits, repeat=len(counts))
        if len(set(chosen)) == len(splits)
    )


def case(rng: np.random.Generator, units: int, classes: int, splits: int):
    counts = rng.integers(0, 9, (units, classes))
    counts[counts.sum(axis=1) == 0, 0] = 1
    shares = rng.dirichlet(np.full(splits, 3.0))
    return counts, apportion_table(counts.sum(axis=0).tolist(), shares)


def orders(units: int, starts: int):
    return [np.random.default_rng(start).permutation(units) for start in range(starts)]


def test_misfit_is_the_sum_of_squared_differences() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        counts, wanted = case(rng, 6, 3, 3)
        chosen = rng.integers(0, 3, 6)
        assert misfit(counts, wanted, chosen) == squared_differences(counts, wanted, chosen)


def test_few_units_are_dealt_as_well_as_by_trying_everything() -> None:
    rng = np.random.default_rng(0)
    excess = []
    for _ in range(60):
        counts, wanted = case(rng, *rng.integers([3, 1, 2], [7, 4, 4]).tolist())
        chosen = deal(counts, wanted, orders(len(counts), 12))
        excess.append(misfit(counts, wanted, chosen) - least_misfit(counts, wanted))
    assert min(excess) >= 0
    assert np.count_nonzero(excess) <= 2
    assert max(excess) <= 10


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    units=st.integers(1, 40),
    classes=st.integers(1, 4),
    splits=st.integers(1, 4),
)
def test_exchanges_never_make_it_worse_nor_empty_a_split(
    seed: int, units: int, classes: int, splits: int
) -> None:
    counts, wanted = case(np.random.default_rng(seed), units, classes, splits)
    (order,) = orders(units, 1)
    largest_first = order[np.argsort(-counts.sum(axis=1)[order], kind="stable")]
    plain = fill(counts, wanted, largest_first)
    better = deal(counts, wanted, orders(units, 1))
    assert misfit(counts, wanted, better) <= misfit(counts, wanted, plain)
    assert len(set(better.tolist())) == min(units, splits)


@pytest.mark.parametrize("units", [60, 300])
def test_many_groups_come_out_within_an_image_of_the_table(units: int) -> None:
    rng = np.random.default_rng(units)
    counts = rng.poisson(2, (units, 3)) + 1
    wanted = apportion_table(counts.sum(axis=0).tolist(), [0.6, 0.3, 0.1])
    chosen = deal(counts, wanted, orders(units, 12))
    table = np.stack([counts[chosen == split].sum(axis=0) for split in range(3)], axis=1)
    assert np.abs(table - wanted).max() <= 1


def test_equal_units_are_dealt_by_the_order() -> None:
    counts, wanted = np.ones((10, 1), dtype=np.int64), np.array([[5, 5]])
    hits = sum(deal(counts, wanted, orders(10, seed + 1)[seed:]) == 0 for seed in range(60))
    assert hits.sum() == 300
    assert ((hits > 12) & (hits < 48)).all()
