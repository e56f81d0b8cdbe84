import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data_prep.reading.intensity as intensity_module
from data_prep.errors import UserError
from data_prep.reading.intensity import (
    RULES,
    Intensity,
    LimitFinder,
    apply_intensity,
    fill_not_finite,
    find_limits,
    parse_intensity,
    with_limits,
)
from data_prep.reading.spec import Reading, merge, parse_reading

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


STRIPES = np.add.outer(np.random.default_rng(2).gamma(2, 300, 512), 400 * (np.arange(512) % 2))


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint16, np.uint32, np.float32, np.float64]
)
@pytest.mark.parametrize(
    "rule", ["percentile:1,99", "percentile:0.1,97.5", "sqrt:30,60", "zscore:2"]
)
def test_limits_of_an_image_are_those_of_all_its_values(rule: str, dtype: type) -> None:
    image = (
        (STRIPES / 16).clip(0, 255).astype(dtype) if dtype == np.uint8 else STRIPES.astype(dtype)
    )
    intensity = parse_intensity(rule)
    if intensity.rule == "zscore":
        mean, spread = image.mean(dtype=np.float64), 2 * image.std(dtype=np.float64)
        expected = [mean - spread, mean + spread]
    else:
        expected = np.percentile(image.astype(np.float64), intensity.parameters).tolist()
    np.testing.assert_allclose(find_limits(image, intensity), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_networks_of_before_keep_the_sample_of_an_image(dtype: type) -> None:
    image = STRIPES.astype(dtype)
    sampled = Reading(intensity=parse_intensity("percentile:1,99"), percentiles="sampled")
    rule = sampled.active_intensity
    assert rule is not None
    few = image.ravel()[np.linspace(0, image.size - 1, 256).astype(np.int64)]
    np.testing.assert_array_equal(
        find_limits(image, rule), np.percentile(few.astype(float), [1, 99])
    )
    share = abs(apply_intensity(image, rule) - scaled(image, "percentile:1,99")).max()
    assert share > 0.02  # nothing that a network would not notice
    known = with_limits(rule, (1.0, 2.0))
    assert known == parse_intensity("percentile:1,99@1,2")


@pytest.mark.parametrize(
    "kinds", [["uint8"], ["uint16", "int16"], ["uint16", "float64"], ["float32"]]
)
def test_percentiles_of_a_set_are_exact_up_to_millions_of_values(kinds: list[str]) -> None:
    images = [(STRIPES / 20 + 7 * n).clip(0, 255).astype(kinds[n % len(kinds)]) for n in range(12)]
    finder = LimitFinder(parse_intensity("percentile:1,99", "set"), len(images))
    for image in images:
        finder.add(image)
    everything = np.concatenate([image.astype(np.float64).ravel() for image in images])
    np.testing.assert_allclose(finder.limits(), np.percentile(everything, [1, 99]), rtol=1e-12)


def test_of_more_values_an_even_part_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intensity_module, "MOST_VALUES", 2**17)
    rng = np.random.default_rng(0)
    images = [STRIPES + rng.normal(mean, 1, STRIPES.shape) for mean in np.linspace(0, 1000, 8)]
    images.append(np.full((3000, 400), 5e4))  # larger than the others, and counts accordingly
    finder = LimitFinder(parse_intensity("percentile:1,60", "set"), len(images))
    for image in images:
        finder.add(image)
    everything = np.concatenate([image.ravel() for image in images])
    low, high = finder.limits()
    for limit, percent in ((low, 1), (high, 60)):
        found = 100 * (everything < limit).mean()
        assert found == pytest.approx(percent, abs=6 * np.sqrt(percent * (100 - percent) / 2**16))


def test_limits_of_a_set_must_be_known_before_use() -> None:
    rule = parse_intensity("sqrt", "set")
    with pytest.raises(UserError, match="still to be found over the training images"):
        apply_intensity(SKY, rule)
    known = with_limits(rule, find_limits(SKY, rule))
    np.testing.assert_array_equal(apply_intensity(SKY, known), scaled(SKY, "sqrt"))


def test_declared_percentiles_reach_the_rule_that_a_manifest_states() -> None:
    old = parse_reading("exif=ignore;percentiles=sampled")
    assert str(merge(Reading(), old)) == "exif=ignore"  # nothing is sampled
    assert str(merge(parse_reading("intensity=minmax"), old)) == "exif=ignore;intensity=minmax"
    ruled = merge(parse_reading("intensity=percentile(1,99)"), old)
    assert str(ruled) == "exif=ignore;intensity=percentile(1,99);percentiles=sampled"
    assert parse_reading(str(ruled)) == ruled
    assert str(parse_reading("percentiles=exact")) == ""


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
