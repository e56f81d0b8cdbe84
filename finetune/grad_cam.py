"""Grad-CAM: where in an image a network found what speaks for a class.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", equations 1 and 2.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from simclr_tf.evaluation.drawing import WIDTH, bare_figure, plain

Watched = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

_OPACITY = 0.5
_MOST_COLUMNS = 4
_LONGEST = 22  # letters of a line above a picture


def grad_cam(
    watched: Watched, images: np.ndarray, classes: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Heat maps of the evidence for one class in every image.

    Args:
        watched: Images [n, H, W, C] -> feature maps [n, h, w, c] and the logits [n, K] computed
            from them, in inference mode.
        images: [n, H, W, C] as the network takes them.
        classes: Of every image the class asked about, int [n].

    Returns:
        float32 [n, H, W] in [0, 1], each map divided by its maximum; all 0 where nothing speaks
        for the class.
    """
    shown = tf.convert_to_tensor(images, tf.float32)
    with tf.GradientTape() as tape:
        # Frozen layers are not recorded unless something before them is watched.
        tape.watch(shown)
        maps, logits = watched(shown)
        asked = tf.gather(logits, tf.constant(classes, tf.int64), axis=1, batch_dims=1)
    gradient = tape.gradient(asked, maps)
    weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1, keepdims=True))
    heat = tf.image.resize(tf.cast(heat, tf.float32), shown.shape[1:3])[..., 0]
    highest = tf.reduce_max(heat, axis=(1, 2), keepdims=True)
    return tf.math.divide_no_nan(heat, highest).numpy()


def overlay_figure(images: np.ndarray, heat: np.ndarray, titles: Sequence[str]) -> Figure:
    """Every image, and beside it the same under its heat map.

    Args:
        images: [n, H, W, C] in [0, 1], 1 or 3 channels.
        heat: [n, H, W] in [0, 1], from `grad_cam`.
        titles: A few lines above each pair.

    Returns:
        The figure.
    """
    pairs = min(_MOST_COLUMNS // 2, len(images))
    rows = -(-len(images) // pairs)
    lines = max(title.count("\n") + 1 for title in titles)
    figure = bare_figure(rows * (WIDTH / 4 + 0.15 * lines + 0.1) + 0.1)
    figure.set_layout_engine("constrained", h_pad=0.06)
    grid = figure.subplots(rows, 2 * pairs, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for index, (image, map_, title) in enumerate(zip(images, heat, titles, strict=True)):
        row, column = divmod(index, pairs)
        left, right = grid[row, 2 * column : 2 * column + 2]
        for axes in (left, right):
            axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
        right.imshow(map_, cmap="inferno", alpha=_OPACITY, vmin=0, vmax=1)
        text = "\n".join(plain(line, 2 * _LONGEST) for line in title.split("\n"))
        left.set_title(text, fontsize=8, loc="left")
    return figure
