import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.augment.copy_operations import (
    EXACT,
    OPERATIONS,
    RANDOM,
    STRONGER_LIST,
    apply_operation,
    check_operations,
)
from data_prep.errors import UserError
from tests.data_prep.augment.common import noise
from tests.data_prep.image_files import pixels

INVERSE = {"rot90": "rot270", "rot270": "rot90"}
MOVING = [name for name, operation in RANDOM.items() if not operation.levels]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def smooth(channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    image = pixels(1, 40, 52, channels).reshape(40, 52, channels)
    return image if dtype is np.uint8 else image.astype(dtype) * 257


@settings(max_examples=50, deadline=None)
@given(
    name=st.sampled_from(sorted(EXACT)),
    kind=st.sampled_from(["uint8", "uint16", "int32", "float32", "float64", "bool"]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 5),
)
def test_exact_operations_move_every_value_and_can_be_undone(
    name: str, kind: str, height: int, width: int, channels: int
) -> None:
    image = noise(3, (height, width, channels)).astype(kind)
    moved = apply_operation(image, name, generator())
    assert moved.dtype == image.dtype
    assert sorted(moved.ravel().tolist()) == sorted(image.ravel().tolist())
    undone = apply_operation(moved, INVERSE.get(name, name), generator())
    np.testing.assert_array_equal(undone, image)


def test_exact_operations_do_what_they_are_called() -> None:
    image = np.arange(6).reshape(2, 3, 1)
    found = {name: apply_operation(image, name, generator())[..., 0].tolist() for name in EXACT}
    assert found == {
        "hflip": [[2, 1, 0], [5, 4, 3]],
        "vflip": [[3, 4, 5], [0, 1, 2]],
        "rot90": [[2, 5], [1, 4], [0, 3]],
        "rot180": [[5, 4, 3], [2, 1, 0]],
        "rot270": [[3, 0], [4, 1], [5, 2]],
        "transpose": [[0, 3], [1, 4], [2, 5]],
    }


def test_exact_operations_keep_values_that_are_not_finite() -> None:
    image = np.array([[[np.nan], [np.inf]]], np.float32)
    np.testing.assert_array_equal(
        apply_operation(image, "hflip", generator()), [[[np.inf], [np.nan]]]
    )


@pytest.mark.parametrize("name", [*RANDOM, "stronger"])
def test_the_seed_alone_decides(name: str) -> None:
    image = smooth()
    first, again, other = (apply_operation(image, name, generator(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.uint8
    assert first.shape != other.shape or (first != other).any()
    assert first.shape != image.shape or (first != image).any()


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_deep_images_keep_their_depth(name: str) -> None:
    """A 16-bit image gives what its 8-bit copy gives, to half a level, in finer steps."""
    deep, flat = smooth(dtype=np.uint16), smooth()
    result = apply_operation(deep, name, generator(4))
    assert result.dtype == np.uint16
    expected = apply_operation(flat, name, generator(4)).astype(float)
    assert np.abs(result / 257 - expected).max() < 0.51
    if name != "erase":  # whose box and surroundings are values that were there before
        assert len(np.unique(result % 257)) > 1


@pytest.mark.parametrize("name", sorted(RANDOM))
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_images_of_any_channels_but_for_color(name: str, channels: int) -> None:
    image = smooth(channels)
    if RANDOM[name].rgb:
        with pytest.raises(UserError, match=f"{name} needs RGB images, not {channels} channels"):
            apply_operation(image, name, generator())
    else:
        assert apply_operation(image, name, generator()).shape == image.shape


@pytest.mark.parametrize("name", sorted(MOVING))
def test_moving_operations_take_floats_of_any_range(name: str) -> None:
    image = smooth(2).astype(np.float32) * 1e3 - 5e4
    result = apply_operation(image, name, generator(5))
    assert result.dtype == np.float32
    expected = apply_operation(smooth(2).astype(np.float32), name, generator(5))
    np.testing.assert_allclose(result, expected * 1e3 - 5e4, rtol=1e-4, atol=60)


@pytest.mark.parametrize("name", sorted(set(RANDOM) - set(MOVING)))
def test_operations_on_levels_need_a_range(name: str) -> None:
    image = smooth().astype(np.float32)
    with pytest.raises(UserError, match=f"{name} changes grey levels, and floating point values"):
        apply_operation(image, name, generator())
    result = apply_operation(image / 255, name, generator())
    assert result.dtype == np.float32
    assert 0 <= result.min() <= result.max() <= 1


@pytest.mark.parametrize("kind", ["int16", "uint32", "bool"])
def test_types_that_would_not_be_kept_are_refused(kind: str) -> None:
    with pytest.raises(UserError, match=f"would not keep values of type {kind}; exact are only"):
        apply_operation(smooth().astype(kind), "rotate", generator())


def test_values_that_are_not_finite_are_not_spread() -> None:
    image = smooth().astype(np.float32)
    image[3, 4] = np.nan
    with pytest.raises(UserError, match="would spread the values that are not finite"):
        apply_operation(image, "rotate", generator())


@pytest.mark.parametrize("name", ["rotate", "affine", "perspective", "elastic", "blur", "sharpen"])
def test_nothing_black_comes_in_from_beyond_the_edge(name: str) -> None:
    image = np.full((32, 40, 1), 200, np.uint8)
    for seed in range(8):
        result = apply_operation(image, name, generator(seed))
        assert np.abs(result.astype(int) - 200).max() <= 1


def test_dark_pictures_are_not_drowned() -> None:
    image = (smooth(1) // 16).astype(np.uint8)  # at most 15
    for name in ("brightness", "contrast", "noise"):
        for seed in range(10):
            result = apply_operation(image, name, generator(seed)).astype(float)
            assert np.corrcoef(result.ravel(), image.ravel())[0, 1] > 0.95
            assert result.max() < 30


def test_elastic_never_folds_the_picture() -> None:
    """A ramp stays a ramp: what was to the right of a point stays to its right."""
    ramp = np.broadcast_to(np.arange(200, dtype=np.float32)[None, :, None], (200, 200, 1))
    for seed in range(5):
        bent = apply_operation(np.ascontiguousarray(ramp), "elastic", generator(seed))[..., 0]
        inner = bent[30:-30, 30:-30]
        assert (np.diff(inner, axis=1) > 0).mean() > 0.999
        assert 0.5 < np.abs(bent - ramp[..., 0]).max() < 25


def test_stronger_takes_each_operation_with_its_probability(monkeypatch) -> None:
    seen: list[str] = []

    def note(pixels: np.ndarray, name: str, generator: np.random.Generator) -> np.ndarray:
        seen.append(name)
        return pixels

    from data_prep.augment import copy_operations as operations

    apply_stronger = operations._stronger
    monkeypatch.setattr(operations, "apply_operation", note)
    number = 2000
    for seed in range(number):
        before = len(seen)
        apply_stronger(smooth(), generator(seed))
        assert len(seen) > before
    for name, probability in STRONGER_LIST:
        assert abs(seen.count(name) / number - probability) < 0.04
    seen.clear()
    for seed in range(100):
        apply_stronger(smooth(1), generator(seed))
    assert not {name for name in seen if name in RANDOM and RANDOM[name].rgb}


@pytest.mark.parametrize(
    ("operations", "said"),
    [
        (("hflip", "hflop"), "no operation 'hflop'; there are hflip, vflip"),
        ((), "no operation given"),
        (("hflip", "hflip"), "named twice"),
    ],
)
def test_operations_that_cannot_be_are_named(operations: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_operations(operations)
    check_operations(OPERATIONS)
