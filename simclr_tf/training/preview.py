"""What the network is shown: a sheet of augmented views."""

import numpy as np
import tensorflow as tf

from data_prep.augment.contact_sheet import tiled
from data_prep.augment.views import ViewConfig, device_views, example_seed, host_views
from data_prep.sources.source import Source
from simclr_tf.config.run_config import RunConfig

_IMAGES = 8


def view_sheet(source: Source, views: ViewConfig, config: RunConfig) -> np.ndarray:
    """The views of the first images that training sees.

    Args:
        source: The training images.
        views: The augmentation.
        config: Its `machine.seed` and `train.train_batch_size` fix which images come first.

    Returns:
        A picture [H, W, 3], uint8: one column an image, one row a view.
    """
    return tiled(sample_views(source, views, config))


def sample_views(source: Source, views: ViewConfig, config: RunConfig) -> np.ndarray:
    """The views of up to eight training images: [n, V, S, S, C], float32 in [0, 1]."""
    batch_size = config.train.train_batch_size
    elements = source.elements(
        seed=config.machine.seed, shuffle=True, start=0, batch_size=batch_size
    )
    images, draws = [], []
    for element in elements.take(min(_IMAGES, batch_size)):
        seed = example_seed(config.machine.seed, element["epoch"], element["index"])
        image, draw = host_views(source.decode(element), seed, views)
        images.append(image)
        draws.append(draw)
    return device_views(tf.stack(images), tf.stack(draws), views).numpy()
