"""Where the randomness of synthetic images comes from.

Every image has a generator of its own, seeded by (seed, class, index): it does not depend on how
many others are made, nor in which order or on how many threads.
"""

import zlib

import numpy as np

from data_prep.synthetic.parameters import Range


def image_generator(seed: int, class_name: str, index: int) -> np.random.Generator:
    """The random generator that belongs to one image of a set."""
    entropy = [seed, zlib.crc32(class_name.encode()), index]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def between(rng: np.random.Generator, bounds: Range) -> float:
    """A number drawn uniformly from a range."""
    return float(rng.uniform(*bounds))


def whole_between(rng: np.random.Generator, bounds: Range) -> int:
    """A whole number drawn uniformly from a range, both ends included."""
    return int(rng.integers(round(bounds[0]), round(bounds[1]) + 1))
