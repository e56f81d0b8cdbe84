"""Boxes, turns and flips."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_prep.augment import geometry
from data_prep.augment.geometry import CropBox
from data_prep.augment.views import ViewConfig, host_views
from tests.data_prep.augment.common import BOTH_WAYS, noise


def box(*numbers: int) -> CropBox:
    return CropBox(*(tf.constant(n) for n in numbers))


def many_boxes(
    within: CropBox, area: tuple[float, float], aspect: tuple[float, float]
) -> np.ndarray:
    seeds = tf.constant([[5, i] for i in range(200)], tf.int64)
    return np.array([[int(n) for n in geometry.random_box(s, within, area, aspect)] for s in seeds])


def test_boxes_stay_inside_and_keep_to_their_ranges() -> None:
    y, x, h, w = many_boxes(box(10, 20, 80, 60), (0.5, 0.7), (1.0, 1.0)).T
    assert (y >= 10).all()
    assert (x >= 20).all()
    assert (y + h <= 90).all()
    assert (x + w <= 80).all()
    assert np.abs(h - w).max() <= 1  # an aspect that must not change does not
    area = h * w / (80 * 60)
    assert 0.48 < area.min() < 0.55
    assert 0.65 < area.max() < 0.72


def test_boxes_that_never_fit_are_the_whole() -> None:
    assert (many_boxes(box(3, 4, 100, 10), (0.9, 1.0), (1.0, 1.0)) == [3, 4, 100, 10]).all()


def test_central_boxes_are_never_empty() -> None:
    numbers = [int(n) for n in geometry.central_box(noise(0, (9, 7, 1)), 1.0, 0.01)]
    assert numbers == [4, 3, 1, 1]


@pytest.mark.parametrize("shape", [(40, 70), (70, 40), (33, 33), (2, 3)])
@pytest.mark.parametrize("along", [2, 3, 5])
def test_a_grid_of_squares_reaches_from_edge_to_edge(shape: tuple[int, int], along: int) -> None:
    boxes = geometry.square_grid(noise(0, (*shape, 1)), along)
    side = round(0.6 * min(shape))
    tops, lefts = (np.linspace(0, length - side, along).astype(int) for length in shape)
    expected = [(top, left, side, side) for top in tops for left in lefts]
    np.testing.assert_array_equal(np.array(boxes), expected)
    if along >= 3 and side > 1:
        seen = np.zeros(shape, bool)
        for top, left, height, width in expected:
            seen[top : top + height, left : left + width] = True
        assert seen.all()


@pytest.mark.parametrize("run", BOTH_WAYS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resizing_to_the_same_size_is_the_crop(dtype: type, run: Callable[..., Any]) -> None:
    image = noise(0, (20, 30, 2), dtype)
    result = run(lambda x: geometry.crop_and_resize(x, box(3, 5, 12, 14), 12, 14), image)
    np.testing.assert_array_equal(result, image[3:15, 5:19])


def test_uint8_rounds_and_clips() -> None:
    image = np.zeros((8, 8, 1), np.uint8)
    image[:, 4:] = 255
    pixels = geometry.crop_and_resize(image, box(0, 0, 8, 8), 8, 32).numpy()
    exact = geometry.crop_and_resize(image.astype(np.float32), box(0, 0, 8, 8), 8, 32).numpy()
    assert exact.min() < 0
    assert exact.max() > 255
    np.testing.assert_array_equal(pixels, np.round(np.clip(exact, 0, 255)))


@pytest.mark.parametrize("run", BOTH_WAYS)
@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("horizontal", [False, True])
def test_flip(horizontal: bool, vertical: bool, run: Callable[..., Any]) -> None:
    image = noise(0, (6, 6, 3))
    expected = image[:, ::-1] if horizontal else image
    expected = expected[::-1] if vertical else expected
    result = run(geometry.flip, image, np.array([vertical, horizontal]))
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("run", BOTH_WAYS)
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_quarter_turns(count: int, run: Callable[..., Any]) -> None:
    image = noise(0, (6, 6, 3))
    result = run(geometry.quarter_turns, image, np.int32(count))
    np.testing.assert_array_equal(result, np.rot90(image, count))


@pytest.mark.parametrize("run", BOTH_WAYS)
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_free_rotation_by_quarter_turns_is_exact(count: int, run: Callable[..., Any]) -> None:
    image = noise(0, (20, 30, 3))
    result = run(
        lambda x, angle: geometry.rotate_and_resize(x, box(4, 6, 12, 12), angle, 12),
        image,
        np.float32(count * np.pi / 2),
    )
    np.testing.assert_allclose(
        result.numpy().astype(int), np.rot90(image[4:16, 6:18], count).astype(int), atol=1
    )


def test_free_rotation_without_a_turn_is_bilinear_resizing() -> None:
    image = noise(0, (40, 40, 1), np.float32)
    result = geometry.rotate_and_resize(image, box(10, 10, 20, 12), tf.constant(0.0), 16)
    crop = tf.image.resize(image[10:30, 10:22], [16, 16])
    np.testing.assert_allclose(result[1:-1, 1:-1], crop[1:-1, 1:-1], atol=1e-5)


def test_free_rotation_turns_by_the_angle_and_keeps_the_aspect() -> None:
    """A bar through the centre, turned by 30 degrees, has its moments' axis there."""
    y, x = np.mgrid[:101, :101] - 50.0
    bar = np.exp(-(((x / 20) ** 2 + (y / 4) ** 2) / 2)).astype(np.float32)[..., None]
    angle = np.pi / 6
    turned = geometry.rotate_and_resize(
        bar, box(0, 0, 101, 101), tf.constant(angle, tf.float32), 101
    )
    w = turned.numpy()[..., 0] * (np.hypot(x, y) < 48)
    xx, yy, xy = (w * x * x).sum(), (w * y * y).sum(), (w * x * y).sum()
    axis = 0.5 * np.arctan2(2 * xy, xx - yy)
    assert abs(axis + angle) < 0.01  # counter-clockwise: rows grow downwards


def test_rotated_corners_show_the_image_beyond_the_central_crop() -> None:
    """Real pixels fill the corners where there are any."""
    image = np.zeros((90, 90, 1), np.uint8)
    image[30:60, 30:60] = 200
    config = ViewConfig(40, 1, 8, random_crop=False, central_crop=1 / 3, rotation_degrees=45.0)
    views, _ = host_views(image, tf.constant([0, 1], tf.int64), config)
    assert (views.numpy()[:, 20, 20] == 200).all()
    assert (views.numpy() == 0).any()


def test_rotation_angles_fill_their_range() -> None:
    """Of a horizontal ramp's views, the direction tells the angle."""
    x = np.mgrid[:64, :64][1]
    ramp = x.astype(np.float32)[..., None] / 64
    config = ViewConfig(
        16, 1, 200, random_crop=False, central_crop=0.5, rotation_degrees=30.0,
        horizontal_flip=False,
    )  # fmt: skip
    views, _ = host_views(ramp, tf.constant([0, 1], tf.int64), config)
    views = views.numpy()[..., 0]
    down, right = views[:, 9, 8] - views[:, 7, 8], views[:, 8, 9] - views[:, 8, 7]
    angles = np.degrees(np.arctan2(down, right))
    assert -30.1 < angles.min() < -27
    assert 27 < angles.max() < 30.1
