"""The random parts have the reference's distributions, to 0.03 in probability."""

from collections import Counter
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_prep.augment import geometry
from data_prep.augment.draws import Draw, draw, example_seed
from data_prep.augment.views import ViewConfig
from tests.data_prep.augment.common import RECORD

STATS = RECORD["stats"]
KS_TOLERANCE = 0.03
EXAMPLES, VIEWS = 400, 60
DRAWS = EXAMPLES * VIEWS


def assert_same_distribution(sample: np.ndarray, reference: dict[str, Any]) -> None:
    """Kolmogorov-Smirnov distance to the reference's quantiles, ties allowed for."""
    quantiles = np.array(reference["quantiles_0_to_100_by_5"])
    probability = np.linspace(0, 1, 21)
    below = (sample[:, None] < quantiles - 1e-6).mean(0)
    up_to = (sample[:, None] <= quantiles + 1e-6).mean(0)
    assert (below <= probability + KS_TOLERANCE).all()
    assert (up_to >= probability - KS_TOLERANCE).all()


def draw_many(**settings: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """The draws of many examples with many views each, as rows [DRAWS, ...]."""
    config = ViewConfig(224, 3, num_views=VIEWS, **settings)
    dataset = tf.data.Dataset.range(EXAMPLES).map(
        lambda i: draw(example_seed(11, tf.constant(3), i), config)
    )
    geometry_draws, draws = next(iter(dataset.batch(EXAMPLES)))
    return (
        [np.concatenate(g) for g in geometry_draws],
        draws.numpy().reshape(-1, len(Draw)),
    )


@pytest.mark.parametrize(("height", "width", "size"), [(48, 40, 32), (240, 320, 224)])
def test_crop(height: int, width: int, size: int) -> None:
    stats = STATS[f"crop_{height}x{width}_to_{size}x{size}"]
    views, examples = 20, 400
    config = ViewConfig(size, 3, num_views=views)
    whole = geometry.CropBox(*(tf.constant(n) for n in (0, 0, height, width)))

    def boxes(index: tf.Tensor) -> tf.Tensor:
        seeds = draw(example_seed(11, tf.constant(0), index), config)[0].crop_seed
        return tf.map_fn(
            lambda s: tf.stack(geometry.random_box(s, whole, config.crop_area, config.crop_aspect)),
            seeds,
            fn_output_signature=tf.int32,
        )

    dataset = tf.data.Dataset.range(examples).map(boxes).batch(examples)
    y, x, h, w = next(iter(dataset)).numpy().reshape(-1, 4).T.astype(float)
    assert_same_distribution(h * w / (height * width), stats["area_fraction"])
    assert_same_distribution(w / h, stats["aspect_w_over_h"])
    assert_same_distribution(h, stats["crop_height"])
    assert_same_distribution(w, stats["crop_width"])
    slack_y, slack_x = height - h, width - w
    assert_same_distribution(
        (y[slack_y > 0] / slack_y[slack_y > 0]), stats["offset_y_fraction_of_slack"]
    )
    assert_same_distribution(
        (x[slack_x > 0] / slack_x[slack_x > 0]), stats["offset_x_fraction_of_slack"]
    )
    full = ((h == height) & (w == width)).mean()
    assert abs(full - stats["full_image_fraction"]) < 0.005
    assert (h * w / (height * width)).min() >= 0.0999  # a tenth, not the 0.08 of `crop_area`


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_color_jitter(strength: float) -> None:
    stats = STATS[f"color_jitter_strength_{strength}"]
    _, draws = draw_many(color_jitter_strength=strength)
    columns = {
        "brightness": Draw.BRIGHTNESS,
        "contrast": Draw.CONTRAST,
        "saturation": Draw.SATURATION,
        "hue": Draw.HUE,
    }
    for name, column in columns.items():
        assert_same_distribution(draws[:, column], stats["factors"][name])
    assert abs(draws[:, Draw.JITTER].mean() - stats["p_jitter"]) < KS_TOLERANCE
    assert abs(draws[:, Draw.GRAY].mean() - stats["p_gray"]) < KS_TOLERANCE
    low, high = stats["ranges"]["contrast"]
    assert draws[:, Draw.CONTRAST].min() >= low - 1e-6
    assert draws[:, Draw.CONTRAST].max() <= high + 1e-6


def test_order_of_the_jitter_is_uniform() -> None:
    _, draws = draw_many()
    orders = Counter(tuple(row) for row in draws[:, Draw.SLOT_0 :].astype(int))
    assert set(orders) == set(permutations(range(4)))
    counts = np.array(list(orders.values()))
    expected = DRAWS / 24
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 49.7  # 99.9 % quantile at 23 degrees of freedom
    reference = STATS["color_jitter_strength_1.0"]["order_counts"]
    total = sum(reference.values())
    for order, count in reference.items():
        ours = orders[tuple(int(c) for c in order)] / DRAWS
        assert abs(ours - count / total) < KS_TOLERANCE


def test_additive_brightness_is_symmetric() -> None:
    _, draws = draw_many(jitter_impl="simclrv1", color_jitter_strength=0.5)
    delta = draws[:, Draw.BRIGHTNESS]
    assert_same_distribution(delta, {"quantiles_0_to_100_by_5": list(np.linspace(-0.4, 0.4, 21))})


def test_blur() -> None:
    stats = STATS["batch_random_blur"]
    _, draws = draw_many()
    assert_same_distribution(draws[:, Draw.SIGMA], stats["sigma"])
    assert abs(draws[:, Draw.BLUR].mean() - stats["p_selected"]) < KS_TOLERANCE


def test_flips_and_turns() -> None:
    (_, flips, turns), _ = draw_many(vertical_flip=True, right_angle_rotation=True)
    assert abs(flips[:, 1].mean() - STATS["flip"]["p"]) < KS_TOLERANCE
    assert abs(flips[:, 0].mean() - 0.5) < KS_TOLERANCE
    quarters = np.bincount((turns[:, 0] * 4).astype(int), minlength=4) / DRAWS
    assert np.abs(quarters - 0.25).max() < KS_TOLERANCE
    assert_same_distribution(turns[:, 1], {"quantiles_0_to_100_by_5": list(np.linspace(0, 1, 21))})


def test_numbers_are_independent_of_each_other() -> None:
    (_, flips, turns), draws = draw_many(vertical_flip=True)
    factors = draws[:, : Draw.SOLARIZE]
    table = np.concatenate([factors, flips, turns], axis=1).T.astype(float)
    correlation = np.corrcoef(table) - np.eye(len(table))
    assert np.abs(correlation).max() < 5 / np.sqrt(DRAWS)
    first, second = table[:, ::2], table[:, 1::2]  # neighbouring views of one example
    across = np.corrcoef(first, second)[: len(first), len(first) :]
    assert np.abs(across).max() < 5 / np.sqrt(DRAWS / 2)
