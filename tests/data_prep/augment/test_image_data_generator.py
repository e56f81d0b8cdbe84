"""The transfer-learning augmentation against Keras' own, on the same images."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from data_prep.augment.draws import example_seed
from data_prep.augment.image_data_generator import (
    SupervisedConfig,
    TransformParameters,
    draw_parameters,
    feature_statistics,
    linear_map,
    standardize,
    supervised_dataset,
    supervised_image,
    transform,
    warp,
)
from data_prep.augment.image_data_generator_config import FILL_MODES, GENERATOR_RECIPE, TURN_RECIPE
from data_prep.errors import UserError
from data_prep.manifest.scan import scan_folder
from data_prep.sources.manifest_source import ManifestSource
from tests.data_prep.augment.common import BOTH_WAYS, noise
from tests.data_prep.image_files import pixels, write_class_folders

# Keras asks SciPy for a module that is about to move.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Please import `affine_transform` from the `scipy.ndimage`:DeprecationWarning"
)
keras_image = tf.keras.preprocessing.image
GEOMETRY = 0.02  # of 255 levels: float32 positions in images of independent pixels
NAMES = TransformParameters._fields


def square(seed: int = 0, side: int = 33, channels: int = 3) -> np.ndarray:
    return noise(seed, (side, side, channels)).astype(np.float32)


def keras_transform(image: np.ndarray, parameters: dict[str, Any], **arguments: Any) -> np.ndarray:
    generator = keras_image.ImageDataGenerator(**arguments)
    return generator.apply_transform(image.copy(), parameters)


def ours(image: np.ndarray, parameters: dict[str, Any], **arguments: Any) -> np.ndarray:
    config = SupervisedConfig(**arguments)
    return transform(tf.constant(image), TransformParameters(**parameters), config).numpy()


@pytest.mark.parametrize("fill_mode", FILL_MODES)
@pytest.mark.parametrize(
    "parameters",
    [
        {"theta": 30.0},
        {"theta": -161.3},
        {"tx": 3.4, "ty": -7.2},
        {"shear": 25.0},
        {"zx": 0.7, "zy": 1.6},
        {"zx": 3.1, "zy": 3.7},
        {"theta": 17.0, "tx": -4.3, "ty": 2.6, "shear": -12.0, "zx": 1.3, "zy": 0.8},
    ],
    ids=",".join,
)
def test_geometry_equals_keras(parameters: dict[str, float], fill_mode: str) -> None:
    arguments = {"fill_mode": fill_mode, "cval": 40.0}
    image = square()
    expected = keras_transform(image, parameters, **arguments)
    np.testing.assert_allclose(ours(image, parameters, **arguments), expected, atol=GEOMETRY)


@settings(max_examples=15, deadline=None)
@given(
    theta=st.floats(-180, 180),
    tx=st.floats(-20, 20),
    ty=st.floats(-20, 20),
    shear=st.floats(-60, 60),
    zx=st.floats(0.3, 3),
    zy=st.floats(0.3, 3),
    fill_mode=st.sampled_from(["nearest", "reflect"]),
)
def test_any_geometry_equals_keras(fill_mode: str, **parameters: float) -> None:
    image = np.asarray(tf.image.resize(square(1, 6), [24, 24], "bicubic"))  # no jumps: tight
    expected = keras_transform(image, parameters, fill_mode=fill_mode)
    np.testing.assert_allclose(
        ours(image, parameters, fill_mode=fill_mode), expected, atol=GEOMETRY
    )


@pytest.mark.parametrize("fill_mode", FILL_MODES)
def test_images_that_are_not_square_turn_about_their_center(fill_mode: str) -> None:
    """Keras 3.15 takes another point, so SciPy is asked with the centre of the image."""
    image = noise(2, (21, 34, 1)).astype(np.float32)
    linear = linear_map(40.0, 10.0, 0.8, 1.3).numpy()
    rows = linear[::-1, ::-1]  # (y, x) order
    center = (np.array(image.shape[:2]) - 1) / 2
    offset = center + np.array([2.5, -1.5]) - rows @ center
    expected = ndimage.affine_transform(
        image[..., 0], rows, offset, order=1, mode=fill_mode, cval=9.0
    )
    result = warp(tf.constant(image), linear, tf.constant([-1.5, 2.5]), fill_mode, 9.0)
    np.testing.assert_allclose(result[..., 0], expected, atol=GEOMETRY)


@pytest.mark.parametrize("flips", [(True, False), (False, True), (True, True), (False, False)])
@pytest.mark.parametrize("shift", [-31.0, 54.5])
def test_flips_and_channel_shift_equal_keras(flips: tuple[bool, bool], shift: float) -> None:
    image = noise(3, (14, 19, 3)).astype(np.float32)
    parameters = {
        "flip_horizontal": flips[0],
        "flip_vertical": flips[1],
        "channel_shift_intensity": shift,
    }
    np.testing.assert_array_equal(ours(image, parameters), keras_transform(image, parameters))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.77, 1.0, 1.31, 2.4])
def test_brightness_equals_keras(factor: float, channels: int) -> None:
    image = square(4, channels=channels) + np.float32(0.4)  # as an interpolation leaves it
    parameters = {"brightness": factor}
    image = np.minimum(image, 255)
    np.testing.assert_array_equal(ours(image, parameters), keras_transform(image, parameters))


def test_brightness_keeps_finer_levels_of_deeper_images() -> None:
    image = tf.constant([[[0.1234567], [0.4]]])
    config = SupervisedConfig(brightness_range=(0.5, 0.5))
    result = supervised_image(image, example_seed(0, 0, 0), config)
    np.testing.assert_allclose(result[..., 0], [[0.5 * 255 * 0.1234567, 51.0]], rtol=1e-6)


def test_all_operations_together_equal_keras() -> None:
    generator = keras_image.ImageDataGenerator(**WIDE)
    image = square(5, 40)
    for seed in range(20):
        parameters = generator.get_random_transform(image.shape, seed=seed)
        expected = generator.apply_transform(image.copy(), parameters)
        named = TransformParameters(*(parameters[name] for name in NAMES))
        result = transform(tf.constant(image), named, SupervisedConfig(**WIDE)).numpy()
        # Whole levels: an interpolation within GEOMETRY of a level may fall on its other side,
        # and the brightness then makes up to 1.4 levels of it.
        assert np.abs(result - expected).max() <= 2
        assert (np.abs(result - expected) > GEOMETRY).mean() < 0.002


WIDE: dict[str, Any] = {
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.3,
    "brightness_range": (0.6, 1.4),
    "shear_range": 15.0,
    "zoom_range": (0.7, 1.2),
    "channel_shift_range": 30.0,
    "horizontal_flip": True,
    "vertical_flip": True,
    "fill_mode": "reflect",
}


def draws(config: SupervisedConfig, shape: tuple[int, int], number: int) -> dict[str, np.ndarray]:
    """Parameters of many images, by name."""

    def one(index: tf.Tensor) -> dict[str, tf.Tensor]:
        parameters = draw_parameters(example_seed(7, 2, index), *shape, config)
        return {
            name: tf.cast(value, tf.float32)
            for name, value in parameters._asdict().items()
            if value is not None
        }

    rows = tf.data.Dataset.range(number).map(one, num_parallel_calls=2).batch(number)
    return {name: values.numpy() for name, values in next(iter(rows)).items()}


def keras_draws(
    arguments: dict[str, Any], shape: tuple[int, int], number: int
) -> dict[str, np.ndarray]:
    generator = keras_image.ImageDataGenerator(**arguments)
    np.random.seed(3)  # noqa: NPY002 (what Keras draws from)
    rows = [generator.get_random_transform((*shape, 3)) for _ in range(number)]
    return {name: np.array([row[name] for row in rows], np.float64) for name in NAMES}


SWAPPED = {"tx": "ty", "ty": "tx"}  # Keras 3.15 exchanges the axes of shifts; see the module


@pytest.mark.parametrize(
    "arguments",
    [
        WIDE,
        {"width_shift_range": 12.5, "height_shift_range": 3, "zoom_range": 0.4},
        {"width_shift_range": [1, 5, 20], "height_shift_range": [0.1, 0.5]},
    ],
)
def test_parameters_are_distributed_as_keras(arguments: dict[str, Any]) -> None:
    number = 2000
    own = draws(SupervisedConfig(**arguments), (40, 60), number)
    expected = keras_draws(arguments, (40, 60), number)
    assert len(own) >= 2
    for name, values in own.items():
        reference = expected[SWAPPED.get(name, name)]
        assert stats.ks_2samp(values, reference).pvalue > 1e-3, name
        assert values.min() >= reference.min() - 0.05 * np.ptp(reference)
        assert values.max() <= reference.max() + 0.05 * np.ptp(reference)


def test_parameters_are_independent_of_each_other() -> None:
    table = np.stack(list(draws(SupervisedConfig(**WIDE), (40, 60), 2000).values()))
    correlation = np.corrcoef(table) - np.eye(len(table))
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


def test_a_switch_leaves_the_numbers_of_the_others() -> None:
    few = draws(SupervisedConfig(rotation_range=40, zoom_range=(0.7, 1.2)), (40, 60), 10)
    many = draws(SupervisedConfig(**WIDE), (40, 60), 10)
    assert set(few) == {"theta", "zx", "zy"}
    for name, values in few.items():
        np.testing.assert_array_equal(values, many[name])


@pytest.mark.parametrize("config", [SupervisedConfig(), SupervisedConfig().for_scoring()])
def test_by_default_nothing_happens(config: SupervisedConfig) -> None:
    image = noise(6, (9, 12, 3))
    result = supervised_image(tf.constant(image), example_seed(0, 0, 0), config)
    np.testing.assert_array_equal(result, image)


STANDARDIZERS: list[dict[str, Any]] = [
    {"rescale": 1 / 255},
    {"samplewise_center": True},
    {"samplewise_std_normalization": True, "rescale": 0.5},
    {"featurewise_center": True},
    {"featurewise_std_normalization": True, "rescale": 1 / 127.5},
    {"featurewise_std_normalization": True, "samplewise_std_normalization": True},
]


@pytest.mark.filterwarnings("ignore:This ImageDataGenerator specifies")
@pytest.mark.parametrize("arguments", STANDARDIZERS, ids=",".join)
def test_standardization_equals_keras(arguments: dict[str, Any]) -> None:
    images = noise(8, (5, 12, 14, 3)).astype(np.float32)
    generator = keras_image.ImageDataGenerator(**arguments)
    config = SupervisedConfig(**arguments)
    statistics = None
    if config.featurewise_center:
        generator.fit(images)
        statistics = feature_statistics(images, config)
        np.testing.assert_allclose(statistics.mean, generator.mean[0, 0], rtol=1e-5)
        if config.featurewise_std_normalization:
            np.testing.assert_allclose(statistics.std, generator.std[0, 0], rtol=1e-5)
    for image in images:
        expected = generator.standardize(image.copy())
        result = standardize(tf.constant(image), config, statistics)
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-5)


def test_missing_statistics_are_named() -> None:
    with pytest.raises(ValueError, match="statistics of the training images"):
        standardize(tf.zeros([2, 2, 1]), SupervisedConfig(featurewise_center=True))
    with pytest.raises(ValueError, match="no images"):
        feature_statistics([], SupervisedConfig())


def test_the_tenth_of_a_turn_is_keras_random_rotation() -> None:
    image = square(9, 30)
    for share in (-0.1, 0.037, 0.1):
        layer = tf.keras.layers.RandomRotation((share, share), fill_mode="reflect")
        expected = np.asarray(layer(image, training=True))
        angle = {"theta": -360.0 * share}
        found = [ours(image, {"theta": s * angle["theta"]}, fill_mode="reflect") for s in (1, -1)]
        assert min(np.abs(one - expected).max() for one in found) < GEOMETRY
    theta = draws(TURN_RECIPE, (30, 30), 2000)["theta"]
    assert stats.kstest(theta, "uniform", (-36, 72)).pvalue > 1e-3
    assert (
        stats.kstest(draws(GENERATOR_RECIPE, (9, 9), 2000)["theta"] / 30, "uniform", (-1, 2))[1]
        > 1e-3
    )


@pytest.mark.parametrize("way", BOTH_WAYS)
def test_images_are_the_same_eagerly_and_in_a_dataset(way: Any) -> None:
    image = noise(10, (25, 31, 3))
    config = SupervisedConfig(**WIDE)
    result = way(lambda i: supervised_image(i, example_seed(1, 2, 3), config), image)
    expected = supervised_image(tf.constant(image), example_seed(1, 2, 3), config)
    np.testing.assert_allclose(result, expected, atol=1.5)
    assert (np.abs(result - expected) > GEOMETRY).mean() < 0.01


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ManifestSource:
    root = write_class_folders(tmp_path_factory.mktemp("set"), {"a": 4, "b": 4})
    return ManifestSource(scan_folder(root), channels=3, cache="true")


def epoch_of(source: ManifestSource, epoch: int, seed: int = 5, **arguments: Any) -> dict[int, Any]:
    """Augmented images of one epoch by index."""
    config = SupervisedConfig(rotation_range=30, horizontal_flip=True)
    data = supervised_dataset(
        source, config, image_size=(10, 12), batch_size=4, seed=seed, start=8 * epoch, **arguments
    )
    found = {}
    for batch in data.take(2):
        assert set(batch["epoch"].numpy()) == {epoch}
        found |= dict(zip(batch["index"].numpy(), batch["image"].numpy(), strict=True))
    return found


def test_two_epochs_differ_although_decoded_images_are_kept(source: ManifestSource) -> None:
    assert source.cached
    first, second = epoch_of(source, 0), epoch_of(source, 1)
    assert set(first) == set(second) == set(range(8))
    for index, image in first.items():
        assert image.shape == (10, 12, 3)
        assert np.abs(image - second[index]).max() > 1


def test_the_same_seed_and_epoch_repeat_and_another_seed_differs(source: ManifestSource) -> None:
    first, again, other = (epoch_of(source, 3, seed) for seed in (5, 5, 6))
    for index, image in first.items():
        np.testing.assert_array_equal(image, again[index])
        assert np.abs(image - other[index]).max() > 1


def test_scoring_sees_every_image_once_as_it_is(source: ManifestSource) -> None:
    config = SupervisedConfig(rotation_range=30, rescale=1 / 255).for_scoring()
    data = supervised_dataset(
        source, config, image_size=(12, 16), batch_size=3, seed=0, shuffle=False
    )
    batches = list(data)
    assert [len(batch["label"]) for batch in batches] == [3, 3, 2]
    images = np.concatenate([batch["image"] for batch in batches])
    np.testing.assert_array_equal(np.concatenate([b["label"] for b in batches]), [0] * 4 + [1] * 4)
    for number, image in enumerate(images):
        expected = np.repeat(pixels(number + 1, channels=1)[..., None], 3, axis=-1)
        np.testing.assert_allclose(image, expected / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rotation_range": 181}, "rotation_range must lie in 0 to 180"),
        ({"rotation_range": -1}, "rotation_range must lie in 0 to 180"),
        ({"shear_range": 90}, "shear_range must lie in 0 to 89"),
        ({"width_shift_range": -0.1}, "width_shift_range must be numbers from 0"),
        ({"height_shift_range": []}, "height_shift_range must be numbers from 0"),
        ({"zoom_range": 1.0}, "zoom_range must be 0 < least <= greatest, not 0,2"),
        ({"zoom_range": (1, 2, 3)}, "zoom_range must be two numbers"),
        ({"brightness_range": (1.2, 0.8)}, "brightness_range must be 0 <= least <= greatest"),
        ({"brightness_range": 0.5}, "brightness_range must be two numbers"),
        ({"channel_shift_range": 300}, "channel_shift_range must lie in 0 to 255"),
        ({"fill_mode": "mirror"}, "fill_mode must be one of nearest, reflect, wrap, constant"),
    ],
)
def test_impossible_values_are_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SupervisedConfig(**arguments)
