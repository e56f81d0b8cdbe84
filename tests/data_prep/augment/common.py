"""Helpers of the augmentation tests: both ways to run an op, and the golden arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tests import golden

ARRAYS = golden.load_arrays("augment/augment")
RECORD = golden.load_json("augment/augment")
TOLERANCE = 2e-6  # of values in [0, 1]: float32 rounding through four operations


def in_dataset(function: Callable[..., Any], *inputs: Any) -> Any:
    """The function's result from inside a tf.data map."""
    dataset = tf.data.Dataset.from_tensors(inputs).map(function)
    return next(iter(dataset))


def eagerly(function: Callable[..., Any], *inputs: Any) -> Any:
    """The function's result, computed at once."""
    return function(*(tf.convert_to_tensor(i) for i in inputs))


BOTH_WAYS = [eagerly, in_dataset]


def source_image(entry: str) -> np.ndarray:
    """The float32 [0, 1] input image that a golden array (by its name) was made from."""
    parts = entry.split("/")
    pixels = ARRAYS[f"image/{parts[1] if len(parts) > 1 else 'noise48x40'}"]
    return pixels.astype(np.float32) * np.float32(1 / 255)


def noise(seed: int, shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    """An image, or several, of independent pixels over the whole range."""
    generator = np.random.default_rng(seed)
    if dtype is np.uint8:
        return generator.integers(0, 256, shape).astype(np.uint8)
    return generator.random(shape).astype(np.float32)
