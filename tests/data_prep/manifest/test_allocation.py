import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.manifest.allocation import apportion, apportion_table

shares = st.lists(st.floats(0.01, 1), min_size=1, max_size=6).map(
    lambda weights: [weight / sum(weights) for weight in weights]
)


@pytest.mark.parametrize(
    ("total", "parts", "expected"),
    [
        (10, [0.7, 0.3], [7, 3]),
        (10, [0.7, 0.1, 0.2], [7, 1, 2]),
        (12827, [0.675, 0.225, 0.1], [8658, 2886, 1283]),
        (100, [1 / 3, 1 / 3, 1 / 3], [34, 33, 33]),
        (1, [0.6, 0.3, 0.1], [1, 0, 0]),
        (3064, [0.7, 0.3], [2145, 919]),
    ],
)
def test_known_cases(total: int, parts: list[float], expected: list[int]) -> None:
    assert apportion(total, parts).tolist() == expected


@settings(deadline=None)
@given(total=st.integers(0, 10**6), parts=shares)
def test_every_part_is_its_share_rounded(total: int, parts: list[float]) -> None:
    counts = apportion(total, parts)
    assert counts.sum() == total
    assert (np.abs(counts - total * np.array(parts)) < 1).all()


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=12), parts=shares)
def test_rows_columns_and_cells_are_exact(sizes: list[int], parts: list[float]) -> None:
    table = apportion_table(sizes, parts)
    assert table.sum(axis=1).tolist() == sizes
    assert table.sum(axis=0).tolist() == apportion(sum(sizes), parts).tolist()
    assert (table >= 0).all()


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=12))
@pytest.mark.parametrize("parts", [[0.6, 0.3, 0.1], [0.675, 0.225, 0.1], [0.2] * 5, [0.5, 0.5]])
def test_cells_are_their_share_rounded(sizes: list[int], parts: list[float]) -> None:
    table = apportion_table(sizes, parts)
    assert (np.abs(table - np.outer(sizes, parts)) < 1).all()


def test_columns_stay_exact_where_no_rounding_of_cells_allows_it() -> None:
    # The remainders of class 1 lie all in the first five splits, and they cannot hold four images.
    sizes, parts = [16, 10], [0.1] * 5 + [0.125] * 4
    table = apportion_table(sizes, parts)
    assert table.sum(axis=0).tolist() == apportion(26, parts).tolist() == [3, 3, 3, 3, 2] + [3] * 4
    assert table.sum(axis=1).tolist() == sizes
