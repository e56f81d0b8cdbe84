"""Balanced sampling is exact, fair within classes, and a pure function of seed and position."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import scan_folder
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.order import balanced_sampler
from tests.images import make_folder

LABELS = np.array([0] * 9 + [1] * 4 + [2] * 2)


def draw(labels: np.ndarray, first: int, count: int, seed: int = 0) -> tuple[Any, Any]:
    sample = balanced_sampler(labels, int(labels.max()) + 1)
    index, epoch = sample(tf.range(first, first + count, dtype=tf.int64), seed)
    return index.numpy(), epoch.numpy()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=2, max_size=4), st.integers(0, 5))
def test_a_round_shows_every_class_as_often_and_images_of_a_class_in_turn(
    counts: list[int], seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    largest = max(counts)
    index, _ = draw(labels, 0, len(counts) * largest, seed)
    by_class = Counter(labels[index].tolist())
    assert by_class == dict.fromkeys(range(len(counts)), largest)
    shown = Counter(index.tolist())
    for k, count in enumerate(counts):
        times = [shown[i] for i in np.flatnonzero(labels == k)]
        assert max(times) - min(times) <= (0 if count == largest else 1)


def test_an_image_is_augmented_anew_each_time_it_comes() -> None:
    index, epoch = draw(LABELS, 0, 27 * 4)
    pairs = list(zip(index.tolist(), epoch.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    for image in set(index.tolist()):
        times = sorted(e for i, e in pairs if i == image)
        assert times == list(range(len(times))), "how often it has come before"


def test_positions_are_a_pure_function_of_the_seed() -> None:
    whole, _ = draw(LABELS, 0, 60, seed=3)
    later, _ = draw(LABELS, 40, 20, seed=3)
    np.testing.assert_array_equal(later, whole[40:])
    other, _ = draw(LABELS, 0, 60, seed=4)
    assert not np.array_equal(whole, other)
    second = whole[27:54]
    assert not np.array_equal(whole[:27], second), "each round has an order of its own"


def test_classes_without_images_are_left_out_and_labels_are_needed() -> None:
    index, _ = draw(np.array([0, 0, 0, 3]), 0, 6)
    assert Counter(np.array([0, 0, 0, 3])[index].tolist()) == {0: 3, 3: 3}
    with pytest.raises(UserError, match="label"):
        balanced_sampler(np.array([0, -1]), 2)


def test_a_source_goes_on_where_it_was_and_shards_share_a_batch(tmp_path: Path) -> None:
    images = scan_folder(make_folder(tmp_path, per_class=3, size=8))
    few = [r for r in images.records if r.label != "dots" or r.path.endswith("000.png")]
    source = ManifestSource(Manifest(tuple(few), images.root))
    source.sampler = balanced_sampler(source.labels(), 3)

    def seen(start: int, count: int, shard: tuple[int, int] = (0, 1)) -> list[int]:
        elements = source.elements(seed=1, shuffle=True, start=start, batch_size=4, shard=shard)
        return [int(e["index"]) for e in elements.take(count)]

    whole = seen(0, 16)
    assert seen(8, 8) == whole[8:]
    assert [i for pair in zip(seen(4, 2, (0, 2)), strict=True) for i in pair] == whole[4:6]
    assert seen(4, 2, (1, 2)) == whole[6:8]
    labels = source.labels()[np.array(whole[:9])]
    assert Counter(labels.tolist()) == {0: 3, 1: 3, 2: 3}
    in_order = source.elements(seed=1, shuffle=False, start=0, batch_size=4)
    assert [int(e["index"]) for e in in_order] == list(range(7)), "a single pass is not sampled"
