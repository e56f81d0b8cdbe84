"""Networks of keras.applications as backbones compute what Keras's own do."""

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.config.run_config import RunConfig
from simclr_tf.models import SimCLREncoder
from simclr_tf.models.architectures import KerasArchitecture
from simclr_tf.models.batch_norm import BatchNorm
from simclr_tf.models.keras_applications import build_trunk
from simclr_tf.models.keras_backbone import KerasBackbone
from simclr_tf.training.build import check_image_sizes, take_weights, weighted_backbone
from tests.simclr_tf.backbones import images, shared_encoder, with_statistics

pytestmark = pytest.mark.slow


NAME = "mobilenetv3small"


def trunk(name: str = NAME, channels: int = 3) -> keras.Model:
    """Keras's own network, with weights at random and the statistics of noise."""
    keras.utils.set_random_seed(0)
    network = build_trunk(name, (None, None, channels))
    norms = [n for n in network.layers if isinstance(n, keras.layers.BatchNormalization)]
    noise = np.random.default_rng(2).uniform(0, 255, (8, 32, 32, channels)).astype(np.float32)
    with_statistics(norms, lambda: network(noise, training=True))
    return network


def test_features_are_those_of_keras_and_so_are_the_batch_statistics() -> None:
    theirs = trunk()
    ours = KerasBackbone(KerasArchitecture(f"keras:{NAME}"), trunk=theirs)
    x = images(size=32)
    shown = keras.applications.mobilenet_v3.preprocess_input(x.copy() * 255)
    expected = np.asarray(theirs(shown, training=False)).mean((1, 2))
    scale = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 1e-3 * scale
    np.testing.assert_allclose(ours(x) / scale, expected / scale, atol=1e-4)
    expected = np.asarray(theirs(shown, training=True)).mean((1, 2))
    np.testing.assert_allclose(ours(x, training=True), expected, atol=2e-3)


@pytest.fixture
def double() -> Iterator[None]:
    """In float32 a deep network makes 1e-3 of what the last bit of a sum is."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("name", "module"),
    [("efficientnetb0", "efficientnet"), ("resnet50", "resnet"), ("vgg16", "vgg16")],
)
def test_features_of_deep_networks_are_those_of_keras(double: None, name: str, module: str) -> None:
    theirs = trunk(name)
    ours = KerasBackbone(KerasArchitecture(f"keras:{name}"), trunk=theirs, dtype="float64")
    x = images(size=32).astype(np.float64)
    shown = getattr(keras.applications, module).preprocess_input(x * 255)
    expected = np.asarray(theirs(shown, training=False)).mean((1, 2))
    scale = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 1e-3 * scale
    np.testing.assert_allclose(ours(x) / scale, expected / scale, atol=1e-6)


def test_batch_normalization_is_exchanged_and_keeps_its_weights() -> None:
    theirs = trunk()
    ours = KerasBackbone(
        KerasArchitecture(f"keras:{NAME}"), batch_norm_decay=0.8, global_bn=False, trunk=theirs
    )
    norms = [leaf for leaf in ours.creation_order() if isinstance(leaf, BatchNorm)]
    old = {layer.name: layer for layer in theirs.layers
           if isinstance(layer, keras.layers.BatchNormalization)}  # fmt: skip
    assert {norm.name for norm in norms} == set(old)
    for norm in norms:
        assert (norm.momentum, norm.sync, norm.epsilon) == (0.8, False, old[norm.name].epsilon)
        for mine, other in zip(norm.get_weights(), old[norm.name].get_weights(), strict=True):
            np.testing.assert_array_equal(mine, other)


def test_normalization_without_a_scale_is_that_of_keras() -> None:
    """As in InceptionV3."""
    x = np.random.default_rng(0).normal(2, 3, (4, 5, 5, 6)).astype(np.float32)
    mine, other = BatchNorm(scale=False, epsilon=1e-3), keras.layers.BatchNormalization(scale=False)
    for training in (False, True):
        np.testing.assert_allclose(
            mine(x, training=training), other(x, training=training), atol=1e-4
        )
    assert [v.name for v in mine.variables] == ["beta", "moving_mean", "moving_variance"]


def test_nothing_is_dropped_so_that_a_run_can_be_repeated() -> None:
    network = SimCLREncoder(backbone={"backbone": "keras:EfficientNetB0"})
    x = tf.constant(images(size=32))
    np.testing.assert_array_equal(network(x, training=True), network(x, training=True))
    assert not any("seed" in v.path for v in network.variables)


def test_weights_come_from_a_file_and_are_adapted_to_the_channels(tmp_path: Path) -> None:
    theirs = trunk()
    file = tmp_path / "notop.weights.h5"
    theirs.save_weights(file)
    config = RunConfig.from_values(
        {"backbone": "keras:MobileNetV3Small", "backbone_weights": str(file)}
    )
    source = weighted_backbone(config)
    assert source is not None
    x = images()
    expected = KerasBackbone(KerasArchitecture(f"keras:{NAME}"), trunk=theirs)(x).numpy()
    np.testing.assert_allclose(source(x), expected, atol=1e-6)
    gray = SimCLREncoder(backbone={"backbone": f"keras:{NAME}"}, image_channels=1)
    gray.build()
    taken = take_weights(gray.backbone(), source)
    assert taken == gray.backbone().count_params()
    one = x[..., :1]
    # Prepared alike in all channels, so summing the first kernel over them is exact.
    np.testing.assert_allclose(gray(one), source(np.repeat(one, 3, -1)), atol=2e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbone": "keras:MobileNetV3Smal"}, "did you mean mobilenetv3small"),
        ({"backbone": "keras:NASNetMobile"}, "cannot be cut into a stem and four groups"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(values: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match=message) as error:
        SimCLREncoder(backbone=values)
    assert "\n" not in str(error.value)


def test_weights_that_are_not_there_are_refused_by_their_flag() -> None:
    values = {"backbone": f"keras:{NAME}", "backbone_weights": "nowhere.h5"}
    with pytest.raises(UserError, match=r"--backbone_weights=nowhere.h5: no such file"):
        weighted_backbone(RunConfig.from_values(values))


def test_images_and_small_crops_too_small_for_the_network_are_refused() -> None:
    backbone = shared_encoder(f"keras:{NAME}").backbone()
    values = {"backbone": f"keras:{NAME}", "image_size": 40}
    check_image_sizes(backbone, RunConfig.from_values(values))
    with pytest.raises(UserError, match=r"--image_size=16: is too small for .*; 32 px would do"):
        check_image_sizes(backbone, RunConfig.from_values({**values, "image_size": 16}))
    swav = {**values, "method": "swav", "small_crop_size": 32}
    check_image_sizes(backbone, RunConfig.from_values(swav))
    with pytest.raises(UserError, match=r"--small_crop_size=16: is too small"):
        check_image_sizes(backbone, RunConfig.from_values({**swav, "small_crop_size": 16}))
