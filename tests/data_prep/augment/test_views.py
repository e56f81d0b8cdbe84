"""Views as a whole: seeds, independence of batching and parallelism, dtypes, channels."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_prep.augment.draws import draw
from data_prep.augment.views import (
    Draw,
    ViewConfig,
    device_views,
    evaluation_crops,
    evaluation_image,
    example_seed,
    host_views,
)
from data_prep.errors import UserError
from tests.data_prep.augment.common import BOTH_WAYS, noise

LEVEL = 1 / 255


def seed_of(index: int = 0, epoch: int = 0, run_seed: int = 7) -> tf.Tensor:
    return example_seed(run_seed, epoch, index)


def batch_of_views(count: int, config: ViewConfig) -> tuple[tf.Tensor, tf.Tensor]:
    image = noise(0, (50, 60, config.channels))
    pairs = [host_views(image, seed_of(i), config) for i in range(count)]
    return tf.stack([v for v, _ in pairs]), tf.stack([d for _, d in pairs])


def both(image: Any, seed: tf.Tensor, config: ViewConfig) -> np.ndarray:
    views, draws = host_views(image, seed, config)
    return device_views(views[None], draws[None], config)[0].numpy()


def test_shapes_and_dtypes() -> None:
    config = ViewConfig(24, 3, num_views=3)
    for dtype in (np.uint8, np.float32):
        views, draws = host_views(noise(0, (50, 60, 3), dtype), seed_of(), config)
        assert views.shape == (3, 24, 24, 3)
        assert views.dtype == dtype
        assert draws.shape == (3, len(Draw))
        result = device_views(views[None], draws[None], config)
        assert result.shape == (1, 3, 24, 24, 3)
        assert result.dtype == tf.float32
        assert result.numpy().min() >= 0
        assert result.numpy().max() <= 1


@pytest.mark.parametrize("run", BOTH_WAYS)
def test_static_shapes_survive(run: Callable[..., Any]) -> None:
    config = ViewConfig(24, 3, vertical_flip=True, right_angle_rotation=True, rotation_degrees=10.0)
    shapes = []

    def views_of(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        views, draws = host_views(image, seed, config)
        shapes.append(views.shape)
        result = device_views(views[None], draws[None], config)
        shapes.append(result.shape)
        return result

    assert run(views_of, noise(0, (50, 60, 3)), seed_of()).shape == (1, 2, 24, 24, 3)
    assert shapes[:2] == [(2, 24, 24, 3), (1, 2, 24, 24, 3)]


def test_seeds_are_distinct_and_wide() -> None:
    keys = [(r, e, i) for r in (0, 1, -5, 2**40) for e in (0, 1, 1000) for i in (0, 1, 2**33)]
    seeds = {tuple(example_seed(r, e, i).numpy()) for r, e, i in keys}
    assert len(seeds) == len(keys)
    assert example_seed(0, tf.constant(0), tf.constant(0)).dtype == tf.int64


def test_same_seed_same_views_and_other_seeds_others() -> None:
    image, config = noise(1, (50, 60, 3)), ViewConfig(24, 3)
    first = both(image, seed_of(4, 2, 1), config)
    np.testing.assert_array_equal(first, both(image, seed_of(4, 2, 1), config))
    assert np.abs(first[0] - first[1]).max() > 0.1  # the two views differ
    for other in (seed_of(5, 2, 1), seed_of(4, 3, 1), seed_of(4, 2, 2)):
        assert np.abs(first - both(image, other, config)).max() > 0.1


def test_parallelism_changes_nothing() -> None:
    images = noise(2, (12, 40, 50, 3))
    config = ViewConfig(20, 3)

    def views(index: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        made, draws = host_views(image, seed_of(index), config)
        return device_views(made[None], draws[None], config)[0]

    def run(parallel: int) -> np.ndarray:
        dataset = tf.data.Dataset.from_tensor_slices((np.arange(12), images))
        dataset = dataset.map(views, num_parallel_calls=parallel, deterministic=True)
        return np.stack([row.numpy() for row in dataset])

    np.testing.assert_array_equal(run(1), run(4))


def test_batch_composition_changes_nothing() -> None:
    config = ViewConfig(20, 3)
    views, draws = batch_of_views(8, config)
    together = device_views(views, draws, config).numpy()
    for i in range(8):
        alone = device_views(views[i : i + 1], draws[i : i + 1], config).numpy()
        np.testing.assert_allclose(alone[0], together[i], rtol=0, atol=1e-6)
    backwards = device_views(views[::-1], draws[::-1], config).numpy()
    np.testing.assert_allclose(backwards[::-1], together, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_batches_of_unknown_and_changing_length() -> None:
    config = ViewConfig(20, 3)
    views, draws = batch_of_views(5, config)
    expected = device_views(views, draws, config).numpy()
    dataset = tf.data.Dataset.from_tensor_slices((views, draws)).batch(3)
    rows = [r for v, d in dataset for r in device_views(v, d, config).numpy()]
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_in_every_replica() -> None:
    config = ViewConfig(20, 3)
    views, draws = batch_of_views(4, config)
    expected = device_views(views, draws, config).numpy()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    @tf.function
    def step(v: tf.Tensor, d: tf.Tensor) -> Any:
        return strategy.run(lambda a, b: device_views(a, b, config), args=(v, d))

    dataset = tf.data.Dataset.from_tensors((views, draws)).unbatch().batch(4)
    (v, d) = next(iter(strategy.experimental_distribute_dataset(dataset)))
    rows = np.concatenate(strategy.experimental_local_results(step(v, d)))
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("height", [50, 21])
def test_uint8_views_are_within_half_a_level(height: int) -> None:
    image = noise(3, (height, 60, 3))
    config = ViewConfig(24, 3, num_views=6)
    pixels, draws = host_views(image, seed_of(), config)
    exact, same_draws = host_views(image / np.float32(255), seed_of(), config)
    np.testing.assert_array_equal(draws, same_draws)
    error = np.abs(pixels.numpy() * LEVEL - np.clip(exact, 0, 1))
    assert error.max() <= 0.5001 * LEVEL
    assert exact.numpy().max() > 1  # bicubic overshoots, and float32 keeps it


def test_images_must_have_the_stated_channels() -> None:
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        host_views(noise(0, (8, 8, 1)), seed_of(), ViewConfig(8, 3))


def test_images_must_be_uint8_or_float32() -> None:
    with pytest.raises(ValueError, match="float64"):
        host_views(np.zeros((8, 8, 3)), seed_of(), ViewConfig(8, 3))


def test_finetuning_views_are_plain_crops() -> None:
    """Nothing but crop and flip: the pixels are the host's."""
    config = ViewConfig(24, 3).for_finetuning()
    views, draws = batch_of_views(6, config)
    assert views.shape == (6, 1, 24, 24, 3)
    result = device_views(views, draws, config).numpy()
    np.testing.assert_allclose(result, views.numpy() * LEVEL, rtol=0, atol=1e-7)
    assert len({v.tobytes() for v in views.numpy()}) == 6


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels(channels: int) -> None:
    """Brightness and contrast as for RGB, channel by channel; no saturation, hue or grey."""
    config = ViewConfig(20, channels, color_jitter_probability=1.0, gray_probability=1.0)
    views, draws = batch_of_views(4, config)
    result = device_views(views, draws, config).numpy()
    assert result.shape == (4, 2, 20, 20, channels)
    # The same numbers on each channel repeated as RGB: grey images have no saturation or hue.
    rgb = dataclasses.replace(config, channels=3, gray_probability=0.0)
    for c in range(channels):
        repeated = np.repeat(views.numpy()[..., c : c + 1], 3, axis=-1)
        as_rgb = device_views(repeated, draws, rgb).numpy()
        np.testing.assert_allclose(result[..., c], as_rgb[..., 0], rtol=0, atol=2e-6)


def test_switches() -> None:
    """With all but one operation off, that operation is all that happens."""
    image = noise(5, (24, 24, 3))
    off = ViewConfig(
        24, 3, num_views=8, random_crop=False, horizontal_flip=False, color_jitter_strength=0.0,
        blur=False,
    )  # fmt: skip
    plain = image * np.float32(LEVEL)

    def kinds(**on: Any) -> set[bytes]:
        rows = both(image, seed_of(), dataclasses.replace(off, **on))
        return {np.round(row * 255).astype(np.uint8).tobytes() for row in rows}

    def made(*variants: np.ndarray) -> set[bytes]:
        return {np.round(v * 255).astype(np.uint8).tobytes() for v in variants}

    assert kinds() == made(plain)
    assert kinds(horizontal_flip=True) == made(plain, plain[:, ::-1])
    assert kinds(vertical_flip=True) == made(plain, plain[::-1])
    turns = [np.rot90(plain, k) for k in range(4)]
    assert kinds(right_angle_rotation=True) <= made(*turns)
    assert len(kinds(right_angle_rotation=True)) >= 3
    for one in (
        {"random_crop": True},
        {"color_jitter_strength": 1.0, "gray_probability": 0.0},
        {"blur": True},
        {"rotation_degrees": 20.0},
        {"central_crop": 0.5},
    ):
        assert kinds(**one) != made(plain), one
    gray = both(image, seed_of(), dataclasses.replace(off, gray_probability=1.0))
    assert np.ptp(gray, axis=-1).max() < 1e-6


def test_switching_one_operation_leaves_the_numbers_of_the_others() -> None:
    one = host_views(noise(0, (40, 40, 3)), seed_of(), ViewConfig(24, 3))
    config = ViewConfig(
        24, 3, blur=False, color_jitter_probability=0.1, vertical_flip=False,
        solarize_probability=0.5,
    )  # fmt: skip
    other = host_views(noise(0, (40, 40, 3)), seed_of(), config)
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1][:, : Draw.JITTER], other[1][:, : Draw.JITTER])


def test_each_view_has_its_own_share_of_blur_and_solarizing() -> None:
    """BYOL's: the first view always blurred, the second in a tenth, solarized in a fifth."""
    shares = {"blur_probability": (1.0, 0.1), "solarize_probability": (0.0, 0.2)}
    config = ViewConfig(24, 3, 20_000, **shares)  # type: ignore[arg-type]
    assert config.kinds_of_views == 2
    draws = draw(seed_of(), config)[1].numpy()
    blur, solarize = draws[:, Draw.BLUR], draws[:, Draw.SOLARIZE]
    assert blur[::2].mean() == 1
    assert solarize[::2].mean() == 0
    assert abs(blur[1::2].mean() - 0.1) < 0.015
    assert abs(solarize[1::2].mean() - 0.2) < 0.02
    together = (blur * solarize)[1::2].mean()
    assert abs(together - 0.02) < 0.007, "one does not decide the other"


def test_the_saturation_may_vary_less_than_the_rest() -> None:
    config = ViewConfig(24, 3, 2000, color_jitter_strength=0.5, saturation_share=0.5)
    draws = draw(seed_of(), config)[1].numpy()
    for column, spread in ((Draw.SATURATION, 0.2), (Draw.CONTRAST, 0.4), (Draw.BRIGHTNESS, 0.4)):
        assert abs(draws[:, column].min() - (1 - spread)) < 0.01
        assert abs(draws[:, column].max() - (1 + spread)) < 0.01


def test_central_crop_comes_before_everything_else() -> None:
    """Only the central square is ever seen, in training and evaluation."""
    image = np.full((60, 100, 1), 255, np.uint8)
    image[15:45, 35:65] = 100
    for random_crop in (True, False):
        config = ViewConfig(40, 1, 8, random_crop=random_crop, central_crop=0.5)
        views, _ = host_views(image, seed_of(), config)
        assert (views.numpy() == 100).all()
        assert (evaluation_image(image, config).numpy() == 100).all()


def test_evaluation_takes_small_images_whole() -> None:
    image = noise(0, (32, 32, 3))
    np.testing.assert_array_equal(evaluation_image(image, ViewConfig(32, 3)), image)
    corner = np.zeros((66, 66, 1), np.uint8)
    corner[:8, :8] = 255
    assert evaluation_image(corner, ViewConfig(32, 1)).numpy()[0, 0, 0] == 255
    assert evaluation_image(corner, ViewConfig(33, 1)).numpy()[0, 0, 0] == 255
    assert evaluation_image(corner[2:], ViewConfig(33, 1)).shape == (33, 33, 1)


@pytest.mark.parametrize("run", BOTH_WAYS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_several_evaluation_crops_are_those_squares_of_the_image(
    dtype: type, run: Callable[..., Any]
) -> None:
    """At their own size nothing is interpolated: rows 0 to 24, 8 to 32, 16 to 40, and so on."""
    image = noise(0, (40, 50, 2), dtype)
    crops = run(lambda x: evaluation_crops(x, ViewConfig(24, 2), 3), image)
    expected = [image[y : y + 24, x : x + 24] for y in (0, 8, 16) for x in (0, 13, 26)]
    np.testing.assert_array_equal(crops, expected)
    center = run(lambda x: evaluation_crops(x, ViewConfig(12, 2, central_crop=0.5), 3), image)
    inner = image[10:30, 15:35]
    expected = [inner[y : y + 12, x : x + 12] for y in (0, 4, 8) for x in (0, 4, 8)]
    np.testing.assert_array_equal(center, expected)


def test_evaluation_crops_of_floats_stay_in_range() -> None:
    image = np.zeros((40, 40, 1), np.float32)
    image[:, 20:] = 1
    assert evaluation_crops(image, ViewConfig(40, 1), 2).numpy().max() == 1


@pytest.mark.parametrize("size", [24, 48])
def test_evaluation_never_stretches(size: int) -> None:
    """A disc in a wide image stays a disc."""
    y, x = np.mgrid[:120, :200]
    disc = np.where((y - 59.5) ** 2 + (x - 99.5) ** 2 < 30**2, 255, 0).astype(np.uint8)
    view = evaluation_image(disc[..., None], ViewConfig(size, 1)).numpy()[..., 0] > 127
    np.testing.assert_array_equal(view, view.T)
    share = np.pi * 30**2 / (120 * (1 if size <= 32 else 0.875)) ** 2
    assert abs(view.mean() - share) < 0.01


@pytest.mark.parametrize("size", [24, 48])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_whole_image_is_squeezed_into_the_view(size: int, dtype: type) -> None:
    """Nothing of a long picture is lost, in evaluation and in training without random crop."""
    image = noise(0, (72, 48, 1), dtype)
    views = ViewConfig(
        size, 1, 1, whole_image=True, random_crop=False, horizontal_flip=False, blur=False,
        color_jitter_strength=0,
    )  # fmt: skip
    wanted = tf.image.resize(tf.cast(image, tf.float32), [size, size], "bicubic")
    if dtype == np.uint8:
        wanted = tf.cast(tf.round(tf.clip_by_value(wanted, 0, 255)), tf.uint8)
    else:
        wanted = tf.clip_by_value(wanted, 0, 1)
    np.testing.assert_array_equal(evaluation_image(image, views), wanted)
    seen, _ = host_views(image, example_seed(0, 0, 0), views)
    in_range = seen[0] if dtype == np.uint8 else tf.clip_by_value(seen[0], 0, 1)
    np.testing.assert_array_equal(in_range, wanted)
    with pytest.raises(UserError, match=r"whole_image and central_crop=0\.5 contradict"):
        ViewConfig(size, 1, whole_image=True, central_crop=0.5)
