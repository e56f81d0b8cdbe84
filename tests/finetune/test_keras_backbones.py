import keras
import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from finetune import keras_backbones
from finetune.classifier import Classifier
from finetune.keras_backbones import (
    StandardizeInput,
    build_backbone,
    inputs_of,
    trunk_of,
    unfreeze_after,
)
from simclr_tf.models.keras_applications import shapes_only
from tests.finetune.weights import weights_file

SIZE = 32


def photographs(count: int = 2, channels: int = 3) -> np.ndarray:
    """Whole numbers in 0 to 255, float32."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, SIZE, SIZE, channels)).astype(np.float32)


def test_a_backbone_preprocesses_once_and_then_runs_kerass_network() -> None:
    backbone = build_backbone("vgg16", image_size=SIZE, weights="none")
    pixels = photographs()
    shown = keras.applications.vgg16.preprocess_input(pixels.copy())
    expected = np.asarray(trunk_of(backbone)(shown)).mean(axis=(1, 2))
    np.testing.assert_allclose(backbone(pixels / 255), expected, rtol=1e-4, atol=1e-4)


def test_gray_images_are_repeated() -> None:
    keras.utils.set_random_seed(0)
    color = build_backbone("mobilenet", image_size=SIZE, weights="none")
    gray = build_backbone("mobilenet", image_size=SIZE, weights="none", channels=1)
    gray.set_weights(color.get_weights())
    images = photographs(channels=1) / 255
    np.testing.assert_array_equal(gray(images), color(images.repeat(3, axis=-1)))


def test_preprocessing_stays_in_float32_under_bfloat16() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        backbone = build_backbone("vgg16", image_size=SIZE, weights="none")
    finally:
        keras.config.set_dtype_policy("float32")
    pixels = photographs()
    expected = keras.applications.vgg16.preprocess_input(pixels.copy())
    np.testing.assert_allclose(inputs_of(backbone)(pixels / 255), expected, atol=2e-5)
    assert trunk_of(backbone).get_layer("block1_conv1").compute_dtype == "bfloat16"
    assert backbone(pixels / 255).dtype == tf.float32


@pytest.mark.parametrize("pooling", ["avg", "max", "flatten"])
def test_maps_of_the_cut_layer_are_pooled_as_asked(pooling: keras_backbones.Pooling) -> None:
    backbone = build_backbone(
        "vgg16", image_size=SIZE, weights="none", cut_layer="block4_pool", pooling=pooling
    )
    assert trunk_of(backbone).layers[-1].name == "block4_pool"
    images = photographs() / 255
    maps = np.asarray(trunk_of(backbone)(inputs_of(backbone)(images)))
    assert maps.shape == (2, 2, 2, 512)
    expected = {"avg": maps.mean((1, 2)), "max": maps.max((1, 2)), "flatten": maps.reshape(2, -1)}
    np.testing.assert_allclose(backbone(images), expected[pooling], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "hidden", "total"),
    [
        ("vgg16", 400, (2048, 1024), 167_823_181),
        ("vgg16", 600, (2048, 1024), 356_566_861),
        ("resnet50", 600, (1024, 512), 781_192_077),
    ],
)
def test_flattened_heads_have_as_many_parameters_as_the_published_ones(
    name: str, size: int, hidden: tuple[int, ...], total: int
) -> None:
    backbone = build_backbone(name, image_size=size, weights="none", pooling="flatten")
    with shapes_only():
        model = Classifier(backbone, 13, (size, size, 3), hidden, dropout=0.2)
        model.build()
    assert model.count_params() == total


def test_weights_come_from_a_file_of_either_kind(tmp_path) -> None:
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    made = trunk_of(build_backbone("mobilenet", image_size=SIZE, weights="none"))
    new, old = tmp_path / "made.weights.h5", tmp_path / "made_no_top.h5"
    made.save_weights(new)
    with h5py.File(old, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, made)
    for file in (new, old):
        read = trunk_of(build_backbone("mobilenet", image_size=SIZE, weights=str(file)))
        for got, wanted in zip(read.get_weights(), made.get_weights(), strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.slow
def test_weights_of_another_network_are_refused_in_one_line(tmp_path) -> None:
    file = tmp_path / "mobilenet.weights.h5"
    trunk_of(build_backbone("mobilenet", image_size=SIZE, weights="none")).save_weights(file)
    for name in ("vgg16", "mobilenetv2"):
        with pytest.raises(UserError, match=rf"does not fit {name} .*notop"):
            build_backbone(name, image_size=SIZE, weights=str(file))


def test_imagenet_weights_that_cannot_be_downloaded_are_one_line_with_the_way_out(
    monkeypatch,
) -> None:
    def no_network(*_args: object, **_kwargs: object) -> str:
        raise Exception("URL fetch failure on https://example.org/w.h5: None -- no route")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", no_network)
    with pytest.raises(UserError, match=r"could not be downloaded .*give --weights=FILE") as error:
        build_backbone("vgg16", image_size=SIZE, weights="imagenet")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vgg61"}, "--backbone=vgg61: .* did you mean vgg1"),
        ({"weights": "nowhere.h5"}, "--weights=nowhere.h5: no such file"),
        ({"cut_layer": "block4_poll"}, "--cut_layer=block4_poll: .* did you mean block4_pool"),
        ({"name": "xception"}, "--image_size=32: .* at least 71x71"),
        ({"channels": 5}, "these have 5 channels"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(arguments: dict, message: str) -> None:
    wanted = {"name": "vgg16", "image_size": SIZE, "weights": "none"} | arguments
    with pytest.raises(UserError, match=message):
        build_backbone(**wanted)


def test_only_what_comes_after_the_layer_is_unfrozen_and_batch_norm_stays() -> None:
    backbone = build_backbone("mobilenet", image_size=SIZE, weights="none")
    assert not backbone.trainable_variables
    count = unfreeze_after(backbone, "conv_dw_12_relu")
    names = {v.path.split("/")[-2] for v in backbone.trainable_variables}
    assert names == {"conv_pw_12", "conv_dw_13", "conv_pw_13"}
    assert count == sum(np.prod(v.shape) for v in backbone.trainable_variables)
    unfreeze_after(backbone, "conv_dw_12_relu", batch_norm=True)
    names = {v.path.split("/")[-2] for v in backbone.trainable_variables}
    assert {"conv_pw_12", "conv_pw_12_bn", "conv_dw_13_bn"} <= names
    with pytest.raises(UserError, match="nothing behind it has weights"):
        unfreeze_after(backbone, "conv_pw_13_relu")


@pytest.mark.slow
def test_statistics_of_batch_norm_stay_while_convolutions_train() -> None:
    backbone = build_backbone("mobilenet", image_size=SIZE, weights="none")
    unfreeze_after(backbone, "conv_dw_12_relu")
    model = Classifier(backbone, 2, (SIZE, SIZE, 3))
    norms = [v for v in backbone.non_trainable_variables if "moving" in v.path]
    for norm in norms:
        if "variance" in norm.path:  # or a network at random lets nothing through
            norm.assign(np.full(norm.shape, 0.05, np.float32))
    before = [v.numpy() for v in norms]
    kernel = backbone.trainable_variables[0].numpy()
    model.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy")
    model.train_on_batch(photographs(4) / 255, np.eye(2, dtype=np.float32)[[0, 1, 0, 1]])
    assert norms
    assert np.abs(kernel - backbone.trainable_variables[0].numpy()).max() > 0
    for old, norm in zip(before, norms, strict=True):
        np.testing.assert_array_equal(old, norm.numpy())


@pytest.mark.slow
def test_a_saved_classifier_gives_the_same_and_keeps_what_is_frozen(tmp_path) -> None:
    backbone = build_backbone("mobilenet", image_size=SIZE, weights="none", channels=1)
    unfreeze_after(backbone, "conv_dw_12_relu")
    model = Classifier(backbone, 3, (SIZE, SIZE, 1), (8,), 0.2)
    model.build()
    images = photographs(channels=1) / 255
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images), model(images))
    trained = [v.path for v in model.trainable_variables]
    assert [v.path for v in again.trainable_variables] == trained


def test_standardization_in_the_model_is_that_of_image_data_generator() -> None:
    pixels = photographs(4)
    generator_kind = tf.keras.preprocessing.image.ImageDataGenerator
    scaled = pixels / 255
    mean, std = scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))
    for options in (
        {"rescale": 1 / 255},
        {"samplewise_center": True, "samplewise_std_normalization": True},
        {"rescale": 1 / 255, "featurewise_center": True, "featurewise_std_normalization": True},
    ):
        generator = generator_kind(**options)
        if "featurewise_center" in options:
            generator.fit(pixels)
        layer = StandardizeInput(options, *([mean, std] if "featurewise_center" in options else []))
        expected = np.stack([generator.standardize(p.copy()) for p in pixels])
        np.testing.assert_allclose(layer(pixels / 255), expected, atol=1e-3, rtol=1e-4)
        copy = StandardizeInput.from_config(layer.get_config())
        np.testing.assert_array_equal(copy(pixels / 255), layer(pixels / 255))


def test_the_published_vgg16_weights_are_read_and_tell_images_apart() -> None:
    backbone = build_backbone("vgg16", image_size=SIZE, weights=str(weights_file("vgg16")))
    kernel, bias = trunk_of(backbone).get_layer("block1_conv1").get_weights()
    assert kernel[0, 0, 0, 0] == pytest.approx(0.42947057, abs=1e-8)
    np.testing.assert_allclose(bias[:3], [0.73429835, 0.09340367, 0.06775674], atol=1e-8)
    features = np.asarray(backbone(photographs() / 255))
    assert (features > 0).any()
    assert np.abs(features[0] - features[1]).max() > 1
