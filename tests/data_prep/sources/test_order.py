import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.sources.order import ordered_elements, shuffled_index


def epochs_of(num_examples: int, epochs: int, seed: int = 0) -> np.ndarray:
    """Orders of the first epochs, [epochs, num_examples]."""
    position = tf.range(epochs * num_examples, dtype=tf.int64)
    return shuffled_index(position, seed, num_examples).numpy().reshape(epochs, num_examples)


def sequence(num_examples: int, steps: int | None = None, **options: Any) -> list[tuple[int, int]]:
    settings = {"seed": 0, "shuffle": True, "start": 0, "batch_size": 4, "shard": (0, 1)} | options
    elements = ordered_elements(num_examples, {}, **settings)
    if steps is not None:
        elements = elements.take(steps * settings["batch_size"] // settings["shard"][1])
    return [(int(e["epoch"]), int(e["index"])) for e in elements]


@pytest.mark.parametrize("num_examples", [*range(1, 34), 63, 64, 65, 127, 1000, 4097])
def test_every_epoch_is_a_permutation(num_examples: int) -> None:
    orders = epochs_of(num_examples, 5, seed=num_examples)
    assert (np.sort(orders, axis=1) == np.arange(num_examples)).all()


@pytest.mark.parametrize("num_examples", [2, 3, 4])
def test_all_orders_of_a_small_set_are_equally_likely(num_examples: int) -> None:
    epochs = 600
    count = Counter(map(tuple, epochs_of(num_examples, epochs, seed=11).tolist()))
    expected = epochs / math.factorial(num_examples)
    assert len(count) == math.factorial(num_examples)
    # Five standard deviations of a Poisson count.
    assert max(abs(number - expected) for number in count.values()) < 5 * math.sqrt(expected)


def test_epochs_and_seeds_are_unrelated() -> None:
    orders = np.concatenate([epochs_of(2000, 20, seed) for seed in (0, 1, 2)])
    correlation = np.corrcoef(orders) - np.eye(len(orders))
    assert np.abs(correlation).max() < 5 / math.sqrt(2000)
    neighbors = np.corrcoef(orders[:, :-1].ravel(), orders[:, 1:].ravel())[0, 1]
    assert abs(neighbors) < 5 / math.sqrt(orders.size)


def test_order_is_fixed_for_all_time() -> None:
    assert epochs_of(10, 2, seed=42).tolist() == GOLDEN_ORDER


GOLDEN_ORDER = [[1, 0, 9, 8, 4, 6, 5, 2, 7, 3], [8, 4, 6, 1, 2, 9, 0, 3, 7, 5]]


def test_epoch_follows_the_position_across_batches() -> None:
    seen = sequence(6, steps=6, batch_size=4)
    assert [epoch for epoch, _ in seen] == [position // 6 for position in range(24)]
    for epoch in range(4):
        assert sorted(index for e, index in seen if e == epoch) == list(range(6))


@pytest.mark.parametrize("shuffle", [True, False])
def test_any_start_goes_on_exactly(shuffle: bool) -> None:
    steps = 12 if shuffle else None
    whole = sequence(22, steps, shuffle=shuffle)
    for step in (1, 3, 5):
        rest = sequence(22, steps and steps - step, shuffle=shuffle, start=4 * step)
        assert rest == whole[4 * step :]
    far = sequence(22, 1, start=4 * 10**9)
    assert [epoch for epoch, _ in far] == [(4 * 10**9 + row) // 22 for row in range(4)]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("num_examples", [1, 9, 22, 24])
@pytest.mark.parametrize("workers", [2, 4])
def test_shards_make_up_the_global_batches(shuffle: bool, num_examples: int, workers: int) -> None:
    batch, steps = 8, 5 if shuffle else None
    whole = sequence(num_examples, steps, shuffle=shuffle, batch_size=batch, start=0)
    parts = [
        sequence(num_examples, steps, shuffle=shuffle, batch_size=batch, shard=(k, workers))
        for k in range(workers)
    ]
    rows = batch // workers
    merged = [
        element
        for step in range(math.ceil(len(whole) / batch))
        for part in parts
        for element in part[step * rows : (step + 1) * rows]
    ]
    # Only the last batch of a single pass can be short, and then later shards have fewer rows.
    assert sum(map(len, parts)) == len(whole)
    assert merged == whole


def test_single_pass_is_in_order_and_ends() -> None:
    assert sequence(7, shuffle=False) == [(0, index) for index in range(7)]
    assert sequence(7, shuffle=False, start=8) == []


def test_columns_are_looked_up_by_index() -> None:
    columns = {"label": tf.range(50, 60), "path": tf.constant([f"f{i}" for i in range(10)])}
    elements = ordered_elements(
        10, columns, seed=1, shuffle=True, start=0, batch_size=5, shard=(0, 1)
    )
    assert elements.cardinality() == tf.data.INFINITE_CARDINALITY
    assert elements.element_spec["label"] == tf.TensorSpec((), tf.int32)
    assert elements.element_spec["index"] == tf.TensorSpec((), tf.int64)
    for element in elements.take(12):
        assert int(element["label"]) == 50 + int(element["index"])
        assert element["path"] == f"f{int(element['index'])}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 6}, "start 6 must be a multiple of the batch size 4"),
        ({"start": -4}, "must be a multiple"),
        ({"batch_size": 0}, "must be a multiple"),
        ({"batch_size": 6, "shard": (0, 4)}, "batch of 6 cannot be divided over 4 workers"),
        ({"shard": (2, 2)}, "shard 2 of 2 does not exist"),
    ],
)
def test_impossible_layouts_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sequence(10, 1, **options)
