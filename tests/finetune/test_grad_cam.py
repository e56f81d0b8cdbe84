import keras
import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg

from finetune.classifier import Classifier
from finetune.explain import grad_cam, overlay_figure, watched_classifier
from finetune.keras_backbones import build_backbone, trunk_of

SIZE = 32


def patch_images() -> np.ndarray:
    """Dark images [3, 32, 32, 3], a bright patch of 8 x 8 at another place in each."""
    images = np.full((3, SIZE, SIZE, 3), 0.1, np.float32)
    for image, (row, column) in zip(images, [(0, 0), (16, 8), (24, 24)], strict=True):
        image[row : row + 8, column : column + 8] = 1.0
    return images


def bright_against_dark(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Two maps of 8 x 8, brightness and darkness; class 0 is decided by the first, 1 by the other.

    Gradients are known: a quarter of 1/16 for the own map, 0 for the other.
    """
    bright = tf.nn.avg_pool2d(tf.reduce_mean(images, -1, keepdims=True), 4, 4, "VALID")
    maps = tf.concat([tf.nn.relu(bright - 0.5), tf.nn.relu(0.5 - bright)], axis=-1)
    return maps, tf.reduce_mean(maps, axis=(1, 2))


def test_the_heat_lies_on_the_bright_patch_that_decides_the_class() -> None:
    images = patch_images()
    heat = grad_cam(bright_against_dark, images, [0, 0, 0])
    bright = images[..., 0] > 0.5
    assert heat.shape == (3, SIZE, SIZE)
    for map_, patch in zip(heat, bright, strict=True):
        assert map_.max() == 1
        assert map_[patch].mean() > 0.7
        # Bilinear growth from 8 x 8 reaches at most two pixels beyond.
        assert map_[~patch].mean() < 0.05


def test_for_the_other_class_the_heat_lies_elsewhere() -> None:
    images = patch_images()
    heat = grad_cam(bright_against_dark, images, [1, 1, 1])
    bright = images[..., 0] > 0.5
    assert all(m[~p].mean() > 0.9 and m[p].mean() < 0.3 for m, p in zip(heat, bright, strict=True))


def test_heat_is_the_rectified_sum_of_maps_weighted_by_their_mean_gradients() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4 * 4 * 3, 2)).astype(np.float32)
    images = rng.random((2, 4, 4, 3)).astype(np.float32)

    def watched(x):
        maps = x**2
        return maps, tf.reshape(maps, (-1, 48)) @ kernel

    heat = grad_cam(watched, images, [1, 0])
    for image, map_, winner in zip(images, heat, [1, 0], strict=True):
        weights = kernel[:, winner].reshape(4, 4, 3).mean((0, 1))
        expected = np.maximum((weights * image**2).sum(-1), 0)
        np.testing.assert_allclose(map_, expected / expected.max(), rtol=1e-4, atol=1e-6)


def test_without_evidence_there_is_no_heat_and_no_nan() -> None:
    heat = grad_cam(bright_against_dark, np.full((1, SIZE, SIZE, 3), 0.2, np.float32), [0])
    np.testing.assert_array_equal(heat, 0)


def test_a_frozen_backbone_is_watched_at_its_last_layer_before_pooling() -> None:
    keras.utils.set_random_seed(0)
    backbone = build_backbone("vgg16", image_size=SIZE, weights="none")
    model = Classifier(backbone, 2, (SIZE, SIZE, 3))
    model.build()
    watched, name = watched_classifier(model)
    assert name == "block5_conv3"
    images = tf.constant(patch_images())
    maps, logits = watched(images)
    np.testing.assert_allclose(logits, model.logits(images), rtol=1e-4, atol=1e-5)
    assert maps.shape == (3, 2, 2, 512)
    heat = grad_cam(watched, images.numpy(), [0, 1, 0])
    assert np.isfinite(heat).all()
    assert heat.max() == 1
    assert watched_classifier(model, "block3_conv3")[1] == "block3_conv3"
    trunk = trunk_of(build_backbone("mobilenet", image_size=SIZE, weights="none"))
    assert trunk.layers[-1].name == "conv_pw_13_relu"


def test_texts_above_the_pictures_do_not_overlap() -> None:
    images = patch_images()
    long = "a_very_long_class_name_of_a_lattice_with_two_atoms_each.png"
    titles = [f"{long}\ntrue {long}\npredicted {long}, 1.00"] * 3
    figure = overlay_figure(images, images[..., 0], titles)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    titles = [axes._left_title for axes in figure.axes if axes._left_title.get_text()]
    boxes = [title.get_window_extent(canvas.get_renderer()) for title in titles]
    assert len(boxes) == 3
    width, height = figure.bbox.width, figure.bbox.height
    # A box has a pixel or two of air above its letters.
    assert all(min(b.x0, b.y0) >= 0 and b.x1 <= width and b.y1 <= height + 2 for b in boxes)
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])
