"""Evaluation views in ONNX's operations are those of training."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_prep.augment.views import ViewConfig, evaluation_image
from finetune.export.export import bicubic, evaluation_view


@pytest.mark.parametrize("shape", [(61, 61), (70, 35), (33, 20), (211, 300), (40, 40), (1, 5)])
def test_resizing_is_that_of_tensorflow(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((*shape, 2)).astype(np.float32)
    expected = tf.image.resize(image, [40, 40], tf.image.ResizeMethod.BICUBIC)
    np.testing.assert_allclose(bicubic(tf.constant(image), 40), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kept", [{}, {"central_crop": 0.6}, {"whole_image": True}])
@pytest.mark.parametrize("size", [32, 40])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_views_are_those_of_evaluation(size: int, kept: dict[str, Any], dtype: type) -> None:
    views = ViewConfig(size, 3, **kept)
    image = np.random.default_rng(0).integers(0, 256, (50, 91, 3)).astype(dtype)
    image = image / 255 if dtype == np.float32 else image
    image = tf.constant(image.astype(dtype))
    found, expected = evaluation_view(image, views), evaluation_image(image, views)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(
        tf.cast(found, tf.float32), tf.cast(expected, tf.float32), rtol=0, atol=1e-6
    )
