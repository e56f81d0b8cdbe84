"""The order of examples: a pure function of the run's seed and the position; balanced sampling.

Position p counts the examples of all devices since the start of the run. Its epoch is p // n and
its example the image of p % n under a permutation keyed by (seed, epoch), computed example by
example. So nothing has to be stored, any position can be reached at once, and a run that stops
and goes on sees what it would have seen.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError

# With the default of 4 rounds the permutations of very small sets are not equally likely.
_ROUNDS = 16
# (positions [m], seed) -> (examples [m], how often each has been seen before [m]), int64.
Sampler: TypeAlias = Callable[[tf.Tensor, int | tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
_GOLDEN = 0x9E3779B97F4A7C15


def _constant(value: int) -> tf.Tensor:
    return tf.constant(np.uint64(value))


def _mix(value: tf.Tensor) -> tf.Tensor:
    """The finaliser of SplitMix64 (Steele et al. 2014): uint64 to well-mixed uint64."""
    shift, xor = tf.bitwise.right_shift, tf.bitwise.bitwise_xor
    value = xor(value, shift(value, _constant(30))) * _constant(0xBF58476D1CE4E5B9)
    value = xor(value, shift(value, _constant(27))) * _constant(0x94D049BB133111EB)
    return xor(value, shift(value, _constant(31)))


def shuffle_key(seed: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
    """Key of the permutation of an epoch: integers [...] and [...] -> uint32 [..., 3]."""
    golden = _constant(_GOLDEN)
    state = _mix(tf.cast(seed, tf.uint64) + golden)
    state = _mix(tf.cast(epoch, tf.uint64) * golden + state)
    words = []
    for _ in range(3):
        state = _mix(state + golden)
        words.append(tf.cast(tf.bitwise.right_shift(state, _constant(32)), tf.uint32))
    return tf.stack(words, axis=-1)


def shuffled_index(position: tf.Tensor, seed: int | tf.Tensor, num_examples: int) -> tf.Tensor:
    """Examples at given positions of the endless shuffled run: int64 [m] -> int64 [m]."""
    epoch = position // num_examples
    return tf.raw_ops.RandomIndexShuffle(
        index=position % num_examples,
        seed=shuffle_key(tf.cast(seed, tf.int64), epoch),
        max_index=tf.fill(tf.shape(position), tf.constant(num_examples - 1, tf.int64)),
        rounds=_ROUNDS,
    )


def check_layout(batch_size: int, start: int, shard: tuple[int, int]) -> None:
    """Refuses batches that cannot be divided over the workers, and a start inside a batch.

    Raises:
        UserError: With the numbers in question.
    """
    worker, workers = shard
    if batch_size < 1 or start < 0 or start % batch_size:
        raise UserError(f"start {start} must be a multiple of the batch size {batch_size}")
    if not 0 <= worker < workers:
        raise UserError(f"shard {worker} of {workers} does not exist")
    if batch_size % workers:
        raise UserError(f"a batch of {batch_size} cannot be divided over {workers} workers")


def ordered_elements(
    num_examples: int,
    columns: Mapping[str, tf.Tensor],
    *,
    seed: int,
    shuffle: bool,
    start: int,
    batch_size: int,
    shard: tuple[int, int],
    sampler: Sampler | None = None,
) -> tf.data.Dataset:
    """Elements in their order, with the values of the columns for each.

    Args:
        num_examples: Examples in the set.
        columns: Tensors [num_examples], looked up by the index of the example.
        seed: Seed of the run.
        shuffle: Endless and shuffled, else one pass in the order of the set.
        start: Examples consumed so far by all workers, a multiple of `batch_size`.
        batch_size: Examples a step over all workers.
        shard: This worker and the number of workers; each sees its rows of every batch.
        sampler: Gives the example at a position of a shuffled run, and that example's own epoch;
            None = all examples in turn, in another order each epoch.

    Returns:
        Scalars `index`, `epoch` and one for each column.
    """
    check_layout(batch_size, start, shard)
    worker, workers = shard
    rows = batch_size // workers

    def block(step: tf.Tensor) -> dict[str, tf.Tensor]:
        first = step * batch_size + worker * rows
        if shuffle:
            position = first + tf.range(rows, dtype=tf.int64)
            if sampler is None:
                index = shuffled_index(position, seed, num_examples)
                epoch = position // num_examples
            else:
                index, epoch = sampler(position, seed)
        else:
            last = tf.minimum(first + rows, num_examples)
            index = tf.range(tf.minimum(first, last), last)
            epoch = tf.zeros_like(index)
        found = {name: tf.gather(column, index) for name, column in columns.items()}
        return {"index": index, "epoch": epoch, **found}

    first_step = start // batch_size
    if shuffle:
        steps = tf.data.Dataset.counter(tf.constant(first_step, tf.int64))
    else:
        steps = tf.data.Dataset.range(first_step, -(-num_examples // batch_size))
    block = tf.autograph.experimental.do_not_convert(block)
    # A block of rows at a time, then row by row: ten times faster than one call an example.
    return steps.map(block).unbatch()


def balanced_sampler(labels: np.ndarray, num_classes: int) -> Sampler:
    """A sampler under which all classes that have images come equally often.

    Positions run through rounds of K slots for each image of the largest class, shuffled anew each
    round; slot s belongs to class s mod K, whose images take turns. So a round shows every class
    exactly as often, and the image at a position is a pure function of (seed, position).

    Args:
        labels: Class numbers [n], int64, each from 0.
        num_classes: Classes; those without an image are left out.

    Returns:
        The sampler. An image's epoch counts how often it has come before, so that it is augmented
        anew each time.

    Raises:
        UserError: An image has no label.
    """
    if (labels < 0).any():
        raise UserError("balanced sampling needs a label for every training image")
    classes = [np.flatnonzero(labels == k) for k in range(num_classes)]
    classes = [members for members in classes if len(members)]
    largest = max(len(members) for members in classes)
    with tf.device("CPU:0"):
        table = tf.constant(np.stack([np.resize(members, largest) for members in classes]))
        sizes = tf.constant([len(members) for members in classes], tf.int64)
    slots = len(classes) * largest

    def sample(position: tf.Tensor, seed: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        slot = shuffled_index(position, seed, slots)
        row = slot % len(classes)
        size = tf.gather(sizes, row)
        turn = (position // slots) * largest + slot // len(classes)
        index = tf.gather_nd(table, tf.stack([row, turn % size], axis=1))
        return index, turn // size

    return sample
