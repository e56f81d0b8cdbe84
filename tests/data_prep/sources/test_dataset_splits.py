import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.splits import stratified_split
from data_prep.sources.dataset_splits import split_arrays, split_dataset, split_examples

RATIOS = {"train": 0.6, "validation": 0.3, "test": 0.1}


def labels_and_groups(n: int = 60) -> tuple[list[str], list[str]]:
    return [f"c{i % 3}" for i in range(n)], [f"g{i // 2}" if i < 30 else "" for i in range(n)]


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=20, max_size=80),
    grouped=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_example_i_goes_where_the_manifest_splitter_puts_file_i(
    labels: list[str], grouped: bool, seed: int
) -> None:
    groups = [f"g{i // 2}" * grouped for i in range(len(labels))]
    records = tuple(
        Record(f"images/{i:04d}.png", label, group=group)
        for i, (label, group) in enumerate(zip(labels, groups, strict=True))
    )
    expected = stratified_split(Manifest(records, "/data"), RATIOS, seed)
    indices = split_examples(labels, RATIOS, seed, groups if grouped else None)
    assert list(indices) == list(RATIOS)
    for name, members in indices.items():
        assert members.tolist() == [
            i for i, record in enumerate(expected.records) if record.split == name
        ]


def test_numbers_none_and_bytes_are_labels_too() -> None:
    texts, groups = labels_and_groups()
    as_numbers = np.array([-1 if text == "c1" else int(text[1:]) for text in texts])
    as_texts = ["" if number < 0 else str(number) for number in as_numbers]
    expected = split_examples(as_texts, RATIOS, 1, groups)
    nones = [None if number < 0 else int(number) for number in as_numbers]
    for labels in (as_numbers, np.array(as_texts, dtype=bytes), nones):
        got = split_examples(labels, RATIOS, 1, groups)
        assert {k: v.tolist() for k, v in got.items()} == {
            k: v.tolist() for k, v in expected.items()
        }


def numbered(labels: list[str]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((np.arange(len(labels)), labels))


def test_parts_of_a_dataset_hold_each_element_once_in_order() -> None:
    labels, groups = labels_and_groups()
    indices = split_examples(labels, RATIOS, 7, groups)
    for given_labels in (None, labels):
        parts = split_dataset(numbered(labels), RATIOS, 7, labels=given_labels, groups=groups)
        for name, part in parts.items():
            assert int(part.cardinality()) == len(indices[name])
            elements = [(int(i), text.decode()) for i, text in part.as_numpy_iterator()]
            assert elements == [(i, labels[i]) for i in indices[name]]


def test_every_image_is_loaded_once_and_by_its_own_split_alone() -> None:
    labels, _ = labels_and_groups()
    loaded: list[int] = []

    def read(index: np.int64) -> np.float32:
        loaded.append(int(index))
        return np.float32(index / 2)

    def load(index: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.numpy_function(read, [index], tf.float32), label

    parts = split_dataset(numbered(labels), RATIOS, 2, load=load)
    assert loaded == []
    images = [float(image) for part in parts.values() for image, _ in part.as_numpy_iterator()]
    assert sorted(loaded) == list(range(60))
    assert sorted(images) == [i / 2 for i in range(60)]


def test_dictionaries_and_own_labels() -> None:
    labels = np.arange(60) % 3
    dataset = tf.data.Dataset.from_tensor_slices({"x": np.arange(60), "y": labels})
    parts = split_dataset(dataset, RATIOS, 0, label_of=lambda element: element["y"])
    indices = split_examples(labels, RATIOS, 0)
    assert [int(e["x"]) for e in parts["test"].as_numpy_iterator()] == indices["test"].tolist()


def test_a_dataset_that_shuffles_itself_is_found_out() -> None:
    labels, _ = labels_and_groups()
    shuffled = numbered(labels).shuffle(60, reshuffle_each_iteration=True)
    parts = split_dataset(shuffled, RATIOS, 0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="shuffle after it"):
        list(parts["train"])
    mapped = split_dataset(shuffled, RATIOS, 0, labels=labels, label_of=lambda number, label: label)
    with pytest.raises(tf.errors.InvalidArgumentError, match="shuffle after it"):
        list(mapped["train"])


def test_arrays_are_split_by_rows() -> None:
    labels, groups = labels_and_groups()
    features = {"image": np.arange(120).reshape(60, 2), "depth": np.arange(60) / 4}
    parts = split_arrays(features, np.array(labels), RATIOS, 5, groups)
    indices = split_examples(labels, RATIOS, 5, groups)
    for name, part in parts.items():
        rows = list(part.as_numpy_iterator())
        assert len(rows) == int(part.cardinality()) == len(indices[name])
        for (row, label), index in zip(rows, indices[name], strict=True):
            assert row["image"].tolist() == [2 * index, 2 * index + 1]
            assert row["depth"] == index / 4
            assert label.decode() == labels[index]


def test_what_does_not_fit_together_is_refused() -> None:
    labels, groups = labels_and_groups()
    with pytest.raises(UserError, match="60 labels and 59 groups"):
        split_examples(labels, RATIOS, 0, groups[1:])
    with pytest.raises(UserError, match="no examples"):
        split_examples([], RATIOS, 0)
    with pytest.raises(UserError, match=r"one value an example, not arrays of shape \(3,\)"):
        split_examples(np.eye(3), RATIOS, 0)
    with pytest.raises(UserError, match="60 elements, and there are 59 labels"):
        split_dataset(numbered(labels), RATIOS, 0, labels=labels[1:])
    with pytest.raises(UserError, match="no labels: give `labels`"):
        split_dataset(tf.data.Dataset.range(9), RATIOS, 0)
    with pytest.raises(UserError, match="differ in length"):
        split_arrays(np.zeros((59, 2)), labels, RATIOS, 0)


def test_an_unknown_length_that_differs_fails_when_read() -> None:
    labels, _ = labels_and_groups()
    for kept in (59, 61):
        longer = tf.data.Dataset.range(kept).filter(lambda i: True)
        parts = split_dataset(longer, RATIOS, 0, labels=labels)
        errors = (tf.errors.InvalidArgumentError, tf.errors.FailedPreconditionError)
        with pytest.raises(errors):
            _ = [list(part) for part in parts.values()]
