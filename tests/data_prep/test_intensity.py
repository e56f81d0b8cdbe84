import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from data_prep.intensity import (
    RULES,
    Intensity,
    LimitFinder,
    apply_intensity,
    fill_not_finite,
    find_limits,
    parse_intensity,
    with_limits,
)

SKY = np.random.default_rng(0).exponential(300.0, (20, 30, 1)) - 20


def scaled(pixels: np.ndarray, text: str) -> np.ndarray:
    return apply_intensity(pixels, parse_intensity(text))


def line(low: float, high: float) -> np.ndarray:
    return np.clip((SKY - low) / (high - low), 0, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("minmax", line(SKY.min(), SKY.max())),
        ("percentile", line(*np.percentile(SKY, [1, 99]))),
        ("percentile:5,99.7", line(*np.percentile(SKY, [5, 99.7]))),
        ("sqrt", np.sqrt(line(SKY.min(), SKY.max()))),
        ("sqrt(2)", np.sqrt(line(np.percentile(SKY, 2), SKY.max()))),
        ("zscore", np.clip((SKY - SKY.mean()) / SKY.std(), -3, 3) / 6 + 0.5),
        ("zscore:1.5", np.clip((SKY - SKY.mean()) / SKY.std(), -1.5, 1.5) / 3 + 0.5),
        ("percentile(1,99)@10,500", line(10, 500)),
    ],
)
def test_rules_are_what_their_names_say(text: str, expected: np.ndarray) -> None:
    result = scaled(SKY, text)
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert result.dtype == np.float32


def test_arcsinh_is_that_of_astropy() -> None:
    visualization = pytest.importorskip("astropy.visualization")
    share = line(*np.percentile(SKY, [1, 99.7]))
    for softening in (0.02, 0.1, 0.5):
        expected = visualization.AsinhStretch(softening)(share)
        np.testing.assert_allclose(scaled(SKY, f"arcsinh:{softening}"), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_type_of_the_file_does_not_matter(dtype: type) -> None:
    values = np.random.default_rng(1).integers(0, 256, (7, 9, 2) if dtype == np.uint8 else (7, 9))
    for rule in RULES[1:]:
        np.testing.assert_array_equal(
            scaled(values.astype(dtype), rule), scaled(values.astype(np.float64), rule)
        )


@pytest.mark.parametrize(("rule", "value"), [("sqrt", 0.0), ("zscore", 0.5), ("arcsinh", 0.0)])
def test_an_image_without_contrast_is_flat(rule: str, value: float) -> None:
    assert (scaled(np.full((3, 4), 0.1, np.float32), rule) == value).all()


finite = st.floats(-1e5, 1e5, width=32)


@settings(max_examples=50, deadline=None)
@given(
    images=st.lists(st.lists(finite, min_size=1, max_size=20), min_size=1, max_size=5),
    rule=st.sampled_from(RULES[1:]),
)
def test_limits_of_a_set_are_those_of_all_its_pixels(images: list[list[float]], rule: str) -> None:
    intensity = parse_intensity(rule, "set")
    finder = LimitFinder(intensity, len(images))
    for image in images:
        finder.add(np.array([*image, np.nan, np.inf], np.float32))
    everything = np.concatenate([np.array(image, np.float32) for image in images])
    expected = find_limits(everything, intensity)
    np.testing.assert_allclose(finder.limits(), expected, rtol=1e-4, atol=0.5)
    if rule != "zscore":
        assert finder.limits() == expected


def test_percentiles_of_many_large_images_come_from_an_even_sample() -> None:
    rng = np.random.default_rng(0)
    images = [rng.normal(mean, 1, (64, 64)) for mean in np.linspace(0, 10, 40)]
    rule = parse_intensity("percentile:1,99", "set")
    finder = LimitFinder(rule, 2**22 // 256)  # as if 16,384 were to come: 256 values of each
    for image in images:
        finder.add(image)
    np.testing.assert_allclose(finder.limits(), np.percentile(images, [1, 99]), atol=0.25)


def test_limits_of_a_set_must_be_known_before_use() -> None:
    rule = parse_intensity("sqrt", "set")
    with pytest.raises(UserError, match="still to be found over the training images"):
        apply_intensity(SKY, rule)
    known = with_limits(rule, find_limits(SKY, rule))
    np.testing.assert_array_equal(apply_intensity(SKY, known), scaled(SKY, "sqrt"))


@given(
    rule=st.sampled_from(RULES),
    limits=st.one_of(st.sampled_from(["image", "set"]), st.tuples(finite, finite).map(sorted)),
)
def test_text_form_comes_back_exactly(rule: str, limits: object) -> None:
    plain = parse_intensity(rule)
    chosen = tuple(limits) if isinstance(limits, list) else limits
    intensity = Intensity(rule, plain.parameters, chosen if plain.active else "image")  # type: ignore[arg-type]
    assert parse_intensity(str(intensity)) == intensity


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log", "must be one of none, minmax"),
        ("", "must be one of"),
        ("percentile:99,1", "must rise"),
        ("percentile:1,101", "between 0 and 100"),
        ("arcsinh:0", "first number must be above 0"),
        ("sqrt(a)", "are not numbers"),
        ("minmax:3", "takes 0 numbers"),
        ("sqrt@5", "must come LOW,HIGH"),
        ("sqrt@5,1", "must come LOW,HIGH"),
        ("sqrt@nan,1", "must come LOW,HIGH"),
    ],
)
def test_bad_rules_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_intensity(text)


def test_what_becomes_of_nan_and_infinities() -> None:
    values = np.array([[np.nan, 3.0], [-2.0, np.inf], [5.0, -np.inf]], np.float32)
    for rule, filling in (("min", -2.0), ("median", 3.0), ("zero", 0.0)):
        expected = np.where(np.isfinite(values), values, filling)
        np.testing.assert_array_equal(fill_not_finite(values, rule), expected)
    with pytest.raises(UserError, match=r"3 values of 6 that are not finite .*--nan=min"):
        fill_not_finite(values, "")
    with pytest.raises(UserError, match="no finite value"):
        fill_not_finite(np.full(3, np.nan), "median")
