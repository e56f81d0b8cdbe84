"""Two domains side by side, as the training loop reads them: image and target in one tensor."""

import hashlib
from dataclasses import replace
from typing import Literal

import numpy as np
import tensorflow as tf

from data_prep.augment.photometry import to_float
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.order import shuffled_index
from data_prep.sources.source import Element, Source

Cache = Literal["auto", "true", "false"]

_OTHER_ORDER = 0x0B  # another order of the goal's images than of those that are translated


class TwoDomains(Source):
    """Images, each with one of another domain: its own target, or any.

    An example is decoded to float32 [H, W, 2] in [0, 1]: the image, then the one of the goal.

    Args:
        images: What is translated.
        goals: Where to: depth maps or other images.
        rows: Which goal belongs to each image, int64 [n]; None = they come unpaired, each in an
            order of its own.
        size: Height and width that all of them have.
        seed: The run's, for the order of unpaired goals.
    """

    def __init__(
        self,
        images: ManifestSource,
        goals: ManifestSource,
        rows: np.ndarray | None,
        size: tuple[int, int],
        seed: int = 0,
    ) -> None:
        self._images, self._goals, self._rows = images, goals, rows
        self._size, self._seed = size, seed
        self.num_examples = images.num_examples
        self.class_names: tuple[str, ...] = ()
        self.channels = 2
        self.image_dtype = tf.float32
        paired = "unpaired" if rows is None else rows.tobytes().hex()
        parts = (images.identity, goals.identity, paired)
        self.identity = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()

    def elements(
        self,
        *,
        seed: int,
        shuffle: bool,
        start: int,
        batch_size: int,
        shard: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        """See `Source.elements`."""
        self._goals.prepare()
        return self._images.elements(
            seed=seed, shuffle=shuffle, start=start, batch_size=batch_size, shard=shard
        )

    @tf.autograph.experimental.do_not_convert
    def decode(self, element: Element) -> tf.Tensor:
        """See `Source.decode`."""
        goal = self._goals.decode(self._goals.element(self._goal(element)))
        pair = [to_float(self._images.decode(element)), to_float(goal)]
        return tf.concat([tf.ensure_shape(one, [*self._size, 1]) for one in pair], -1)

    def _goal(self, element: Element) -> tf.Tensor:
        if self._rows is not None:
            with tf.device("CPU:0"):
                return tf.gather(tf.constant(self._rows), element["index"])
        position = element["epoch"] * self.num_examples + element["index"]
        seed = (self._seed << 8) + _OTHER_ORDER
        return shuffled_index(position[tf.newaxis], seed, self._goals.num_examples)[0]

    def diagnose(self) -> UserError | None:
        """See `Source.diagnose`."""
        return self._images.diagnose() or self._goals.diagnose()


def grey_source(manifest: Manifest, cache: Cache) -> ManifestSource:
    """The images of a manifest with one channel, without classes.

    Raises:
        UserError: Images that cannot be read.
    """
    unlabelled = manifest.subset(replace(record, label="") for record in manifest.records)
    return ManifestSource(unlabelled, (), 1, cache)


def common_size(*sources: ManifestSource) -> tuple[int, int]:
    """Height and width of all images.

    Raises:
        UserError: With two images that differ.
    """
    first = sources[0]
    height, width = first.sizes[0]
    for source in sources:
        other = np.flatnonzero((source.sizes != (height, width)).any(axis=1))
        if other.size:
            at = int(other[0])
            raise UserError(
                f"{source.manifest.files()[at]} has {source.sizes[at, 0]}x{source.sizes[at, 1]} "
                f"pixels, {first.manifest.files()[0]} has {height}x{width}; images and targets "
                "must all be of one size (simclr-manifest --tile cuts them)"
            )
    return int(height), int(width)
