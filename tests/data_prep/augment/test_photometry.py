"""The batched photometry against the recipe written image by image with TensorFlow's own ops."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from data_prep.augment.color import all_at_once, one_by_one, photometry
from data_prep.augment.draws import Draw
from data_prep.augment.views import ViewConfig, host_views
from tests.data_prep.augment.common import TOLERANCE, noise

CONFIG = ViewConfig(40, 3, num_views=24, color_jitter_strength=1.25, gray_probability=0.3)


def recipe(image: np.ndarray, draws: np.ndarray, config: ViewConfig) -> np.ndarray:
    """Chen et al. 2020, appendix A, for one image, with tf.image and a convolution."""
    x = tf.constant(image)
    if draws[Draw.JITTER]:
        for number in draws[Draw.SLOT_0 :]:
            if number == 0:
                factor = draws[Draw.BRIGHTNESS]
                x = x * factor if config.jitter_impl == "simclrv2" else x + factor
            elif number == 1:
                x = tf.image.adjust_contrast(x, draws[Draw.CONTRAST])
            elif number == 2:
                x = tf.image.adjust_saturation(x, draws[Draw.SATURATION])
            else:
                x = tf.image.adjust_hue(x, draws[Draw.HUE])
            x = tf.clip_by_value(x, 0, 1)
    if draws[Draw.GRAY]:
        x = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(x))
    x = tf.clip_by_value(x, 0, 1)
    if draws[Draw.BLUR]:
        offset = np.arange(-2, 3)
        kernel = np.exp(-(offset**2) / (2 * draws[Draw.SIGMA] ** 2))
        kernel = np.tile((kernel / kernel.sum())[:, None, None], (1, 3, 1)).astype(np.float32)
        for shape in ((5, 1, 3, 1), (1, 5, 3, 1)):
            x = tf.nn.depthwise_conv2d(
                x[None] if x.shape.rank == 3 else x, kernel.reshape(shape), [1, 1, 1, 1], "SAME"
            )
        x = tf.clip_by_value(x[0], 0, 1)
    x = x.numpy()
    if draws[Draw.SOLARIZE]:  # Grill et al. 2020, appendix B
        x = x * (x < 0.5) + (1 - x) * (x >= 0.5)
    return x


@pytest.mark.parametrize("path", [one_by_one, all_at_once, photometry])
@pytest.mark.parametrize("impl", ["simclrv2", "simclrv1"])
def test_batch_equals_the_recipe_image_by_image(impl: str, path: Callable[..., tf.Tensor]) -> None:
    config = ViewConfig(
        40, 3, 24, color_jitter_strength=1.25, gray_probability=0.3, jitter_impl=impl,
        solarize_probability=0.4,
    )  # fmt: skip
    assert config.blur_kernel_size == 4
    views, draws = host_views(
        noise(4, (50, 60, 3), np.float32), tf.constant([1, 2], tf.int64), config
    )
    assert set(draws.numpy()[:, Draw.JITTER]) == {0, 1}  # every branch is taken
    assert set(draws.numpy()[:, Draw.GRAY]) == {0, 1}
    assert set(draws.numpy()[:, Draw.BLUR]) == {0, 1}
    assert set(draws.numpy()[:, Draw.SOLARIZE]) == {0, 1}
    result = path(views, draws, config).numpy()
    for row, view, numbers in zip(result, views.numpy(), draws.numpy(), strict=True):
        expected = recipe(view, numbers, config)
        # At the threshold, rounding decides which side a pixel is on.
        error = np.minimum(np.abs(row - expected), np.abs(1 - row - expected))
        sure = np.abs(expected - 0.5) > 1e-4
        np.testing.assert_allclose(row[sure], expected[sure], rtol=0, atol=2 * TOLERANCE)
        assert error.max() < 2 * TOLERANCE


@pytest.mark.parametrize("path", [one_by_one, all_at_once, photometry])
def test_uint8_views_are_levels_of_255(path: Callable[..., tf.Tensor]) -> None:
    config = ViewConfig(40, 3, 24)
    views, draws = host_views(noise(4, (50, 60, 3)), tf.constant([1, 2], tf.int64), config)
    floats = tf.cast(views, tf.float32) / 255
    np.testing.assert_allclose(
        path(views, draws, config), path(floats, draws, config), rtol=0, atol=TOLERANCE
    )


def test_views_that_are_left_alone_keep_their_pixels() -> None:
    config = ViewConfig(40, 3, 4)
    views, draws = host_views(noise(4, (50, 60, 3)), tf.constant([1, 2], tf.int64), config)
    draws = draws.numpy()
    draws[:, [Draw.JITTER, Draw.GRAY, Draw.BLUR]] = 0
    result = photometry(views, draws, config).numpy()
    np.testing.assert_allclose(result, views.numpy() / 255, rtol=0, atol=1e-7)


def test_solarizing_alone_inverts_the_bright_half() -> None:
    config = ViewConfig(
        40, 3, 2, color_jitter_strength=0.0, blur=False, solarize_probability=(0.0, 1.0)
    )
    views, draws = host_views(noise(4, (50, 60, 3)), tf.constant([1, 2], tf.int64), config)
    plain, solarized = photometry(views, draws, config).numpy()
    pixels = views.numpy() / np.float32(255)
    np.testing.assert_allclose(plain, pixels[0], atol=1e-6)
    expected = np.where(pixels[1] < 0.5, pixels[1], 1 - pixels[1])
    np.testing.assert_allclose(solarized, expected, atol=1e-6)
