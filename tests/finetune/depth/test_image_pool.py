"""The pool of made images against a loop in Python, on one replica and on two."""

import numpy as np
import pytest
import tensorflow as tf

from finetune.depth.cyclegan import ImagePool, exchange
from tests.replicas import mirrored, per_replica

SHAPE = (2, 2, 1)


def loop(
    pool: list[np.ndarray], size: int, images: np.ndarray, swap: np.ndarray, slot: np.ndarray
) -> list[np.ndarray]:
    """What `ImagePool.query` of the CycleGAN code does, with given draws."""
    out = []
    for i, image in enumerate(images):
        if len(pool) < size:
            pool.append(image)
            out.append(image)
        elif swap[i]:
            out.append(pool[slot[i]])
            pool[slot[i]] = image
        else:
            out.append(image)
    return out


def test_images_are_exchanged_as_in_a_loop() -> None:
    rng = np.random.default_rng(0)
    size, known = 5, []
    pool, count = tf.zeros([size, 4]), tf.constant(0)
    for _ in range(6):  # the second batch fills the pool and exchanges already
        images = rng.random((3, 4), np.float32)
        swap, slot = rng.random(3) < 0.5, rng.integers(0, size, 3).astype(np.int32)
        wanted = loop(known, size, images, swap, slot)
        out, pool, count = exchange(pool, count, tf.constant(images), swap, slot)
        np.testing.assert_array_equal(out, wanted)
        np.testing.assert_array_equal(pool[: len(known)], known)
        assert int(count) == len(known)


def shown(replicas: int, size: int, steps: int = 30) -> tuple[np.ndarray, ImagePool]:
    """What discriminators are shown of 4 images a step, numbered through; [steps, 4]."""
    strategy = tf.distribute.OneDeviceStrategy("CPU:0") if replicas == 1 else mirrored(replicas)
    with strategy.scope():
        pool = ImagePool(size, SHAPE, seed=7)

    @tf.function
    def step(images: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        return strategy.run(pool.query, (images, number))

    found = []
    for number in range(steps):
        batch = np.arange(4 * number, 4 * number + 4, dtype=np.float32)
        images = np.broadcast_to(batch[:, None, None, None], (4, *SHAPE))
        parts = [tf.constant(part) for part in np.split(images, replicas)]
        out = step(per_replica(strategy, parts), tf.constant(number, tf.int64))
        local = strategy.experimental_local_results(out)
        found.append(np.concatenate([part.numpy() for part in local])[:, 0, 0, 0])
    return np.stack(found), pool


def test_a_pool_shows_new_and_older_images_alike() -> None:
    found, pool = shown(1, size=8)
    np.testing.assert_array_equal(found[:2].ravel(), np.arange(8))
    fresh = found[2:] == np.arange(8, 120).reshape(-1, 4)
    assert 0.35 < fresh.mean() < 0.65
    times = np.bincount(found.ravel().astype(int))
    assert times[:8].max() == 2, "those that fill the pool come out at once, and perhaps again"
    assert times[8:].max() == 1
    assert int(pool.count) == 8


def test_replicas_share_one_pool() -> None:
    one, _ = shown(1, size=8, steps=8)
    two, _ = shown(2, size=8, steps=8)
    np.testing.assert_array_equal(one, two)


def test_without_a_pool_images_come_out_as_they_went_in() -> None:
    found, _ = shown(1, size=0, steps=3)
    np.testing.assert_array_equal(found.ravel(), np.arange(12))


@pytest.mark.parametrize("size", [1, 3])
def test_a_pool_may_be_smaller_than_a_batch(size: int) -> None:
    found, pool = shown(1, size=size, steps=5)
    assert int(pool.count) == size
    times = np.bincount(found.ravel().astype(int))
    assert times[:size].max() <= 2
    assert times[size:].max() == 1
