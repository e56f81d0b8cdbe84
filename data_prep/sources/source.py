"""The interface of a source of images to the input pipeline."""

import os
from abc import ABC, abstractmethod

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError

Element = dict[str, tf.Tensor]

# As many images at a time as there are processors: what `AUTOTUNE` finds, without its tuner,
# for which everybody waits who lets go of an iterator.
PARALLEL_CALLS = os.cpu_count() or 1


class Source(ABC):
    """A finite, ordered set of images that can be read in a seeded order from any position.

    Reading and decoding are apart, so that a pipeline decodes, crops and flips in one parallel map:

        elements = source.elements(seed=0, shuffle=True, start=0, batch_size=256)
        views = elements.map(
            lambda element: make_views(source.decode(element), element),
            num_parallel_calls=PARALLEL_CALLS, deterministic=True,
        ).batch(256)

    Attributes:
        num_examples: Number of images.
        class_names: Names of the classes; a label is a position in it.
        channels: Channels of every decoded image.
        image_dtype: tf.uint8, or tf.float32 with values in [0, 1] when any image has more than 8
            bits a channel.
        identity: Hash of the examples and their numbers; for equal identities `index` means the
            same image.
    """

    num_examples: int
    class_names: tuple[str, ...]
    channels: int
    image_dtype: tf.DType
    identity: str

    @abstractmethod
    def elements(
        self,
        *,
        seed: int,
        shuffle: bool,
        start: int,
        batch_size: int,
        shard: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        """Elements still to be decoded, one by one.

        The order is a pure function of `seed` and the position counted over all shards, so that a
        run resumed at `start`, or spread over shards, sees the same images at the same steps.

        Args:
            seed: Seed of the run.
            shuffle: Endless, each epoch in another order; else one pass in the order of the set.
            start: Examples consumed so far over all shards, a multiple of `batch_size`.
            batch_size: Size of the global batch, a multiple of the number of shards.
            shard: (k, K): take the rows k*B/K to (k+1)*B/K - 1 of every global batch of B examples.
                The last batch of a single pass may be short.

        Returns:
            Dictionaries of `index` (int64, the example's number in the set), `epoch` (int64; 0 in a
            single pass), `label` (int64, -1 = none), and what `decode` needs.

        Raises:
            UserError: `start` or `shard` do not go with `batch_size`.
        """

    @abstractmethod
    def decode(self, element: Element) -> tf.Tensor:
        """The image of an element, [H, W, channels] of `image_dtype`; graph code for a map."""

    def diagnose(self) -> UserError | None:
        """Finds the files at fault after decoding has failed: the error that names them, or None.

        Reads the whole set once more, so it may take a while.
        """
        return None


def random_labels(seed: int, num_examples: int, num_classes: int) -> np.ndarray:
    """Labels drawn by index whatever the image, int64 [num_examples]: an explicit control."""
    return np.random.default_rng([seed, 0x1ABE1]).integers(0, num_classes, num_examples)


def resolve_channels(wanted: int | str, present: int) -> int:
    """The number of channels that images will have.

    Args:
        wanted: "auto" (as the images are) or a number.
        present: Channels of the images: 1, 3 or more.

    Raises:
        UserError: Not a number, or impossible: only grey and colour become one another.
    """
    if wanted == "auto":
        return present
    try:
        number = int(wanted)
    except ValueError:
        raise UserError(f"channels must be 'auto' or a number, not {wanted!r}") from None
    if number != present and not {number, present} <= {1, 3}:
        raise UserError(f"the images have {present} channels, which cannot become {number}")
    return number
