"""The networks of keras.applications: names, preprocessing, weights."""

import random

import keras
import numpy as np
import pytest

from simclr_tf.models.keras_applications import (
    PreprocessInput,
    application_names,
    build_trunk,
    gray_affine,
    pixel_affine,
    preprocess_function,
    shapes_only,
)

SIZE = 32


def photographs(count: int = 2, channels: int = 3) -> np.ndarray:
    """Whole numbers in 0 to 255, float32."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, SIZE, SIZE, channels)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("vgg16", "vgg16"),  # BGR less the mean
        ("vgg19", "vgg19"),
        ("resnet50", "resnet50"),
        ("mobilenetv2", "mobilenet_v2"),  # -1 to 1
        ("densenet121", "densenet"),  # mean and deviation of ImageNet
        ("efficientnetb0", "efficientnet"),  # inside the network
    ],
)
def test_images_in_0_to_1_are_preprocessed_as_keras_does_with_0_to_255(
    name: str, module: str
) -> None:
    pixels = photographs()
    expected = getattr(keras.applications, module).preprocess_input(pixels.copy())
    np.testing.assert_allclose(PreprocessInput(name)(pixels / 255), expected, atol=2e-5)


def test_every_network_of_keras_applications_can_be_named() -> None:
    names = application_names()
    assert {"vgg16", "resnet50", "mobilenetv3small", "convnexttiny", "xception"} <= set(names)
    for name in names:
        assert callable(preprocess_function(name))


def test_a_network_that_knows_itself_by_another_name_is_built() -> None:
    assert build_trunk("EfficientNetV2B0", (SIZE, SIZE, 3)).output.shape[-1] == 1280


def test_gray_is_prepared_as_the_network_prepares_it_on_average() -> None:
    factor, offset = gray_affine("vgg16")  # less the mean
    assert factor == pytest.approx(255)
    assert offset == pytest.approx(-np.mean([103.939, 116.779, 123.68]), abs=1e-3)
    factor, offset = gray_affine("mobilenetv3small")  # inside the network
    assert (factor, offset) == pytest.approx((2, -1))
    factor, offset = gray_affine("efficientnetv2b0")  # inside it, mean and deviation of ImageNet
    assert factor == pytest.approx(np.mean(1 / np.array([0.229, 0.224, 0.225])), rel=1e-4)
    assert gray_affine("efficientnetb0") == pytest.approx((255, 0))


def test_gray_is_prepared_alike_in_half_precision_and_draws_nothing() -> None:
    gray_affine.cache_clear()
    keras.utils.set_random_seed(0)
    expected = random.random()
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert gray_affine("mobilenetv3small") == pytest.approx((2, -1))
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert random.random() == expected, "what comes after draws what it would have drawn"


def test_what_is_not_affine_in_a_pixel_is_not_taken_for_it() -> None:
    kernel, bias = pixel_affine(lambda x: x[..., ::-1] * 3 + 1, 2)
    np.testing.assert_allclose(kernel, [[0, 3], [3, 0]])
    np.testing.assert_allclose(bias, [1, 1])
    with pytest.raises(TypeError, match="not affine"):
        pixel_affine(lambda x: x - x.mean(axis=(1, 2), keepdims=True), 3)


def test_other_channels_than_three_get_a_network_of_as_many() -> None:
    for channels in (1, 5):
        trunk = build_trunk("mobilenetv3small", (SIZE, SIZE, channels))
        assert trunk.layers[1].kernel.shape[2] == channels
        assert not any(isinstance(layer, keras.layers.Rescaling) for layer in trunk.layers)


def test_a_network_of_shapes_alone_is_never_given_memory() -> None:
    layer = keras.layers.Dense(3)
    with shapes_only():
        layer.build((None, 5))
    with keras.StatelessScope():  # at whose end Keras initializes what waits for it
        pass
    assert layer.count_params() == 18
    assert layer.kernel._value is None
