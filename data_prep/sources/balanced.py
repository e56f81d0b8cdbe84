"""Balanced sampling: every class as often, every image of a class as often as the others of it."""

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.sources.order import Sampler, shuffled_index


def balanced_sampler(labels: np.ndarray, num_classes: int) -> Sampler:
    """A sampler under which all classes that have images come equally often.

    Positions run through rounds of K slots for each image of the largest class, shuffled anew each
    round; slot s belongs to class s mod K, whose images take turns. So a round shows every class
    exactly as often, and what comes at a position is a pure function of (seed, position).

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
