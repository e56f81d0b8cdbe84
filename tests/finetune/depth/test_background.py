import numpy as np
import pytest

from data_prep.errors import UserError
from finetune.depth.pipeline import parse_background


def test_only_depths_near_the_surface_of_their_case_become_it() -> None:
    background = parse_background(["130", "deep:150"], 5)
    assert background
    depth = np.array([[[126.0, 134.9, 135.1, 150.0]]] * 2, np.float32)
    levelled = background.apply(depth, ["shallow", "deep"])
    np.testing.assert_array_equal(levelled[0, 0], np.float32([130, 130, 135.1, 150]))
    np.testing.assert_array_equal(levelled[1, 0], np.float32([126, 134.9, 135.1, 150]))
    assert depth[0, 0, 0] == 126
    assert levelled.dtype == np.float32


def test_levelling_a_noisy_surface_makes_the_map_better() -> None:
    rng = np.random.default_rng(0)
    true = np.full((4, 20, 20), 130.0)
    true[:, 5:15, 5:15] = 180
    noisy = (true + rng.normal(0, 1, true.shape)).astype(np.float32)
    background = parse_background(["130"], 5)
    assert background
    better = background.apply(noisy, [""] * 4)
    surface = true == 130
    assert np.abs(better - true)[surface].max() == 0
    np.testing.assert_array_equal(better[~surface], noisy[~surface])


def test_what_flags_say_is_checked() -> None:
    assert parse_background([], 5) is None
    for items, message in [
        (["high"], "must be a depth, or CASE:DEPTH"),
        (["a:1", "a:2"], "a comes twice"),
        (["a:"], "must be a depth"),
    ]:
        with pytest.raises(UserError, match=message):
            parse_background(items, 5)
    background = parse_background(["a:1"], 5)
    assert background
    with pytest.raises(UserError, match="names no depth for the case 'b'"):
        background.apply(np.zeros((1, 2, 2), np.float32), ["b"])
