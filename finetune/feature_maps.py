"""What chosen layers of a backbone make of chosen images, as a grid of pictures."""

from collections.abc import Sequence

import keras
import numpy as np
from matplotlib.figure import Figure

from data_prep.errors import UserError
from finetune.keras_backbones import inputs_of, layer_of, trunk_of
from simclr_tf.evaluation.drawing import WIDTH, bare_figure, plain

CHANNELS = 7
_NAME = 16  # letters of an image's name beside its row


def feature_maps(
    backbone: keras.Model, layers: Sequence[str], images: np.ndarray
) -> dict[str, np.ndarray]:
    """The outputs of layers, in inference mode.

    Args:
        backbone: From `build_backbone`.
        layers: Names of layers of the network of `keras.applications`.
        images: [n, S, S, channels] in [0, 1].

    Returns:
        Layer -> float32 [n, h, w, c].

    Raises:
        UserError: There is no such layer, or its output is no map.
    """
    trunk = trunk_of(backbone)
    outputs = [layer_of(trunk, name, "feature_maps").output for name in layers]
    for name, output in zip(layers, outputs, strict=True):
        if len(output.shape) != 4:
            raise UserError(f"--feature_maps={name}: puts out no maps; name a layer before it")
    found = keras.Model(trunk.input, outputs)(inputs_of(backbone)(images), training=False)
    found = found if isinstance(found, list) else [found]
    return {
        name: np.asarray(keras.ops.cast(maps, "float32"))
        for name, maps in zip(layers, found, strict=True)
    }


def liveliest(maps: np.ndarray, count: int = CHANNELS) -> np.ndarray:
    """Channels whose maps vary most over the images and within them; int [<= count], falling.

    Args:
        maps: [n, h, w, c].
        count: How many at most; channels that are constant do not count.
    """
    spread = maps.std(axis=(0, 1, 2), dtype=np.float64)
    order = np.argsort(-spread, kind="stable")[:count]
    return order[spread[order] > 0]


def feature_map_figure(
    images: np.ndarray, maps: np.ndarray, names: Sequence[str], *, title: str = ""
) -> Figure:
    """A row an image: the image, then its maps in the liveliest channels.

    A channel has one grey scale over all rows, so rows can be compared.

    Args:
        images: [n, H, W, C] in [0, 1], 1 or 3 channels.
        maps: [n, h, w, c] of one layer.
        names: Of the images, written below their rows.
        title: Of the figure.

    Returns:
        The figure.
    """
    channels = liveliest(maps)
    columns = 1 + max(len(channels), 1)
    cell = WIDTH / (1 + CHANNELS)
    figure = bare_figure(len(images) * (cell + 0.06) + (0.6 if title else 0.3), title)
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, image in enumerate(images):
        pictures = [(image.squeeze(), 0.0, 1.0)]
        for channel in channels:
            own = maps[..., channel]
            pictures.append((maps[row, ..., channel], float(own.min()), float(own.max())))
        for column, axes in enumerate(grid[row]):
            axes.set_xticks([])
            axes.set_yticks([])
            if column < len(pictures):
                pixels, low, high = pictures[column]
                axes.imshow(pixels, cmap="gray", vmin=low, vmax=high)
            else:
                axes.axis("off")
        grid[row, 0].set_ylabel(plain(names[row], _NAME), fontsize=6)
    grid[0, 0].set_title("image", fontsize=8)
    for column, channel in enumerate(channels, 1):
        grid[0, column].set_title(f"channel {channel}", fontsize=8)
    if not len(channels):
        grid[0, 1].text(0.5, 0.5, "constant", ha="center", va="center", fontsize=8)
    return figure
