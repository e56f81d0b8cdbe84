"""Every deterministic array of the reference, each op run at once and inside tf.data."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_prep.augment import color, geometry
from data_prep.augment.color import all_at_once, one_by_one
from data_prep.augment.draws import Draw
from data_prep.augment.views import ViewConfig, evaluation_image
from tests.data_prep.augment.common import ARRAYS, BOTH_WAYS, RECORD, TOLERANCE, source_image

ENTRIES = {e["array"]: e for e in RECORD["det"] if not e["array"].startswith("image/")}
KINDS = sorted({name.split("/")[0] for name in ENTRIES})
Op = Callable[[tf.Tensor], tf.Tensor]


def named(kind: str) -> list[str]:
    return [name for name in ENTRIES if name.split("/")[0] == kind]


def golden_op(name: str) -> Op:  # noqa: PLR0911
    """The op and its arguments that a golden array's name tells."""
    kind, *rest = name.split("/")
    numbers = [[float(n) for n in re.findall(r"-?\d+\.?\d*", part)] for part in rest]
    if kind == "center_crop":
        height, width = (int(n) for n in numbers[1])
        return lambda x: geometry.center_crop(x, height, width, numbers[2][0])
    if kind == "crop_and_resize":
        height, width = (int(n) for n in numbers[2])
        box = geometry.CropBox(*(tf.constant(int(n)) for n in numbers[1]))
        return lambda x: geometry.crop_and_resize(x, box, height, width)
    if kind == "preprocess_eval":
        size = int(numbers[1][0])
        return lambda x: tf.clip_by_value(geometry.center_crop(x, size, size, 0.875), 0, 1)
    if kind == "blur":
        return lambda x: color.gaussian_blur(x, numbers[2][0], int(numbers[1][0]))
    if kind == "preprocess_train_nojitter_nocrop_noflip":
        return lambda x: tf.clip_by_value(x, 0, 1)
    if kind.startswith("grayscale"):
        return lambda x: color.grayscale(x, keep_channels=kind == "grayscale")
    return lambda x: getattr(color, kind)(x, numbers[1][0])


PLAIN = [kind for kind in KINDS if not kind.startswith("jitter")]


@pytest.mark.parametrize("run", BOTH_WAYS)
@pytest.mark.parametrize("kind", PLAIN)
def test_op_equals_the_reference(kind: str, run: Callable[..., Any]) -> None:
    assert named(kind)
    for name in named(kind):
        result = run(golden_op(name), source_image(name)).numpy()
        np.testing.assert_allclose(result, ARRAYS[name], rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("kind", ["center_crop", "crop_and_resize", "preprocess_eval"])
def test_geometry_is_bit_exact(kind: str) -> None:
    for name in named(kind):
        np.testing.assert_array_equal(golden_op(name)(source_image(name)), ARRAYS[name], name)


def jitter_draws(entry: dict[str, Any], kind: str, impl: str) -> np.ndarray:
    row = np.zeros(len(Draw), np.float32)
    row[Draw.BRIGHTNESS] = entry[
        "brightness_factor" if impl == "simclrv2" else "brightness_delta_v1"
    ]
    row[Draw.CONTRAST], row[Draw.SATURATION] = entry["contrast"], entry["saturation"]
    row[Draw.HUE], row[Draw.SIGMA], row[Draw.JITTER] = entry["hue"], 1, 1
    row[Draw.SLOT_0 :] = entry["perm"] if kind == "jitter_rand" else range(4)
    return row


def compiled(views: tf.Tensor, draws: tf.Tensor, config: ViewConfig) -> tf.Tensor:
    return tf.function(lambda x, d: one_by_one(x, d, config), jit_compile=True)(views, draws)


PATHS = [one_by_one, compiled, all_at_once]


@pytest.mark.parametrize("run", BOTH_WAYS)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("impl", ["simclrv2", "simclrv1"])
def test_jitter_equals_the_reference(
    impl: str, path: Callable[..., tf.Tensor], run: Callable[..., Any]
) -> None:
    """All orders and factors as one batch, each image with its own."""
    names = [n for n in ENTRIES if n.startswith("jitter") and n.endswith(impl)]
    assert len(names) == 16
    images = np.stack([source_image(n) for n in names])
    draws = np.stack([jitter_draws(ENTRIES[n], n.split("/")[0], impl) for n in names])
    config = ViewConfig(48, 3, jitter_impl=impl, gray_probability=0.0, blur=False)
    result = run(lambda x, d: path(x, d, config), images, draws).numpy()
    for row, name in zip(result, names, strict=True):
        np.testing.assert_allclose(row, ARRAYS[name], rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_blur_of_a_batch_equals_the_reference(path: Callable[..., tf.Tensor]) -> None:
    """Both ways of blurring, each image with its own sigma."""
    for kernel in (1, 2, 3, 4, 6, 9, 22):
        names = [n for n in named("blur") if f"/k{kernel}/" in n]
        images = np.stack([source_image(n) for n in names])
        draws = np.zeros((len(names), len(Draw)), np.float32)
        draws[:, Draw.BLUR] = 1
        draws[:, Draw.SIGMA] = [float(n.rsplit("/s", 1)[1]) for n in names]
        config = ViewConfig(10 * kernel, 3, color_jitter_strength=0.0)
        for row, name in zip(path(images, draws, config).numpy(), names, strict=True):
            np.testing.assert_allclose(row, ARRAYS[name], rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("size", [32, 48])
def test_evaluation_image_equals_the_reference(size: int) -> None:
    for name in ("noise48x40", "smooth48x40"):
        golden = ARRAYS[f"preprocess_eval/{name}/{size}"]
        config = ViewConfig(size, 3)
        if size > 32:  # the reference leaves the crop out up to 32
            result = evaluation_image(source_image(f"/{name}"), config)
            np.testing.assert_array_equal(result, golden)
        pixels = evaluation_image(ARRAYS[f"image/{name}"], config)
        assert pixels.dtype == tf.uint8
        if size > 32:
            np.testing.assert_allclose(pixels.numpy() / 255, golden, rtol=0, atol=0.5001 / 255)


def test_every_array_is_covered() -> None:
    assert len(ENTRIES) == 125
    assert len(RECORD["det"]) == 127
    assert set(PLAIN) == {
        "blur", "brightness_v1", "brightness_v2", "center_crop", "contrast", "crop_and_resize",
        "grayscale", "grayscale1", "hue", "preprocess_eval", "saturation",
        "preprocess_train_nojitter_nocrop_noflip",
    }  # fmt: skip


def test_crop_shapes_equal_the_reference() -> None:
    for entry in RECORD["crop_shape"]:
        height, width = geometry.crop_shape(
            tf.constant(entry["image_height"]),
            tf.constant(entry["image_width"]),
            entry["aspect_ratio"],
            entry["crop_proportion"],
        )
        assert (int(height), int(width)) == (entry["crop_height"], entry["crop_width"]), entry
    assert len(RECORD["crop_shape"]) == 10
