"""The labelled images of a comparison, decoded once for all fits."""

from functools import cached_property

import numpy as np
import tensorflow as tf

from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.order import Sampler, shuffled_index
from finetune.compare.images import Division


class Sources:
    """What may be learnt from, and the sealed test images, each as one source.

    Args:
        division: Who may see which image.
        channels: Of the images.
    """

    def __init__(self, division: Division, channels: int) -> None:
        self._division, self._channels = division, channels
        records = division.images.records
        rows = [i for i, r in enumerate(records) if r.split == "train" and r.label]
        self.pool_rows = np.array(rows, dtype=np.int64)
        self.test_rows = division.test_rows
        self._place = {row: place for place, row in enumerate(rows)}

    @cached_property
    def pool(self) -> ManifestSource:
        """All labelled training images; a fit draws from some of them, see `limit`."""
        return self._open(self.pool_rows)

    @cached_property
    def test(self) -> ManifestSource:
        """The sealed test images."""
        return self._open(self.test_rows)

    def _open(self, rows: np.ndarray) -> ManifestSource:
        return ManifestSource(self._division.take(rows), self._division.class_names, self._channels)

    def limit(self, rows: np.ndarray) -> ManifestSource:
        """The training images, of which only some come in training.

        Args:
            rows: int64 [n], their positions in the division.

        Raises:
            KeyError: One of them is no labelled training image.
        """
        places = np.array([self._place[row] for row in rows.tolist()], dtype=np.int64)
        self.pool.sampler = subset_sampler(places)
        return self.pool


def subset_sampler(chosen: np.ndarray) -> Sampler:
    """A sampler under which only some images come: all of them in turn, in another order an epoch.

    Args:
        chosen: int64 [n], their indices in the source.
    """
    with tf.device("CPU:0"):
        table = tf.constant(chosen, tf.int64)
    number = len(chosen)

    def sample(position: tf.Tensor, seed: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.gather(table, shuffled_index(position, seed, number)), position // number

    return sample
