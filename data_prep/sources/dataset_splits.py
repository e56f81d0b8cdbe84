"""Splitting a tf.data.Dataset, or arrays, by the rule that splits a manifest."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.splits import stratified_split
from data_prep.sources.source import PARALLEL_CALLS


def split_examples(
    labels: Sequence[Any] | np.ndarray,
    ratios: Mapping[str, float],
    seed: int,
    groups: Sequence[Any] | np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Deals numbered examples out to splits, as `stratified_split` does with files.

    Example i goes where a manifest of the same labels and groups whose paths sort like the numbers
    has its record i.

    Args:
        labels: The class of every example, [n] numbers or texts; -1, "" or None = no label.
        ratios: Split -> share, above 0, with sum 1.
        seed: Another seed, another split.
        groups: Groups that are never torn, [n] numbers or texts; -1, "" or None = on its own.

    Returns:
        Split -> int64 indices of its examples, ascending.

    Raises:
        UserError: Labels and groups of different length, impossible shares, or a split that would
            stay empty.
    """
    label_texts = _texts(labels)
    group_texts = _texts(groups) if groups is not None else [""] * len(label_texts)
    if len(group_texts) != len(label_texts):
        raise UserError(f"there are {len(label_texts)} labels and {len(group_texts)} groups")
    if not label_texts:
        raise UserError("there are no examples to split")
    records = tuple(
        Record(f"{index:012d}", label, group=group)
        for index, (label, group) in enumerate(zip(label_texts, group_texts, strict=True))
    )
    dealt = stratified_split(Manifest(records), ratios, seed)
    home = np.array([record.split for record in dealt.records])
    return {name: np.flatnonzero(home == name) for name in ratios}


def split_dataset(
    dataset: tf.data.Dataset,
    ratios: Mapping[str, float],
    seed: int,
    *,
    labels: Sequence[Any] | np.ndarray | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    label_of: Callable[..., tf.Tensor] | None = None,
    load: Callable[..., Any] | None = None,
) -> dict[str, tf.data.Dataset]:
    """Splits a dataset by the positions of its elements.

    A split is the dataset with the elements of the others filtered out, so whatever comes before
    is done for all of them in every pass. Give a dataset of file names, or of undecoded bytes, and
    the function that reads them as `load`: then an image is loaded by its own split only.

        files = tf.data.Dataset.from_tensor_slices((paths, classes))
        parts = split_dataset(files, {"train": 0.8, "test": 0.2}, seed=0, load=read_image)
        train = parts["train"].shuffle(1000).batch(64)

    Args:
        dataset: Unbatched, finite, in the same order in every pass: shuffle the parts, not this.
        ratios: Split -> share, above 0, with sum 1.
        seed: Another seed, another split.
        labels: The class of every element, [n]; None = read by one pass over the dataset.
        groups: Groups that are never torn, [n]; see `split_examples`.
        label_of: Takes the components of an element and returns its scalar class; None = the last
            component of a tuple.
        load: Maps an element after the split, in parallel and in order.

    Returns:
        Split -> dataset, of known cardinality, in the order of the whole. Where elements hold their
        labels, a pass in which they come in another order than when the split was made fails.

    Raises:
        UserError: See `split_examples`; also a dataset that is not as long as the labels, or that
            has no labels.
    """
    carried = label_of or (_last_component(dataset) if labels is None else None)
    if labels is None:
        if carried is None:
            raise UserError("the elements have no labels: give `labels`, or `label_of`")
        labels = np.array(list(dataset.map(carried).as_numpy_iterator()))
    indices = split_examples(labels, ratios, seed, groups)
    length = int(dataset.cardinality())
    if length >= 0 and length != len(labels):
        raise UserError(f"the dataset has {length} elements, and there are {len(labels)} labels")
    home = np.empty(len(labels), dtype=np.int64)
    for number, members in enumerate(indices.values()):
        home[members] = number
    numbered = dataset.enumerate()
    if carried is not None:
        numbered = numbered.map(_order_check(carried, labels))
    return {
        name: _part(numbered, home, number, len(indices[name]), load)
        for number, name in enumerate(indices)
    }


def split_arrays(
    features: Any,
    labels: Sequence[Any] | np.ndarray,
    ratios: Mapping[str, float],
    seed: int,
    groups: Sequence[Any] | np.ndarray | None = None,
) -> dict[str, tf.data.Dataset]:
    """Splits arrays by `split_examples`; the datasets pick rows, and no part is copied.

    Args:
        features: Array [n, ...], or a structure (tuple, dictionary) of them.
        labels: The class of every row, [n].
        ratios: Split -> share, above 0, with sum 1.
        seed: Another seed, another split.
        groups: Groups that are never torn, [n]; see `split_examples`.

    Returns:
        Split -> dataset of (features, label), in the order of the rows.

    Raises:
        UserError: See `split_examples`; also arrays of different length.
    """
    lengths = {len(array) for array in tf.nest.flatten(features)} | {len(labels)}
    if len(lengths) > 1:
        raise UserError(f"features and labels differ in length: {sorted(lengths)}")
    indices = split_examples(labels, ratios, seed, groups)
    tensors = tf.nest.map_structure(tf.convert_to_tensor, features), tf.convert_to_tensor(labels)

    def row(index: tf.Tensor) -> Any:
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, index), tensors)

    return {
        name: tf.data.Dataset.from_tensor_slices(rows).map(
            row, num_parallel_calls=PARALLEL_CALLS, deterministic=True
        )
        for name, rows in indices.items()
    }


def _texts(values: Sequence[Any] | np.ndarray) -> list[str]:
    """Labels or groups as texts, those that mean "none" as ""."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise UserError(
            f"labels and groups must be one value an example, not arrays of shape {array.shape[1:]}"
        )
    none = {"-1", "None"} if array.dtype.kind in "iufO" else set()
    texts = (v.decode() if isinstance(v, bytes) else str(v) for v in array.tolist())
    return ["" if text in none else text for text in texts]


def _last_component(dataset: tf.data.Dataset) -> Callable[..., tf.Tensor] | None:
    """The label of elements such as (image, label)."""
    spec = dataset.element_spec
    return (lambda *element: element[-1]) if isinstance(spec, tuple) and len(spec) > 1 else None


def _order_check(
    label_of: Callable[..., tf.Tensor], labels: Sequence[Any] | np.ndarray
) -> Callable[[tf.Tensor, Any], tuple[tf.Tensor, Any]]:
    """Passes numbered elements on, and fails where the label is not the one the split saw."""
    expected = tf.constant(np.asarray(labels))

    def check(index: tf.Tensor, element: Any) -> tuple[tf.Tensor, Any]:
        label = _apply(label_of, element)
        tf.debugging.assert_equal(
            label,
            tf.cast(expected[index], label.dtype) if label.dtype != tf.string else expected[index],
            "the elements come in another order than when they were split: shuffle after it",
        )
        return index, element

    return check


def _part(
    numbered: tf.data.Dataset,
    home: np.ndarray,
    number: int,
    length: int,
    load: Callable[..., Any] | None,
) -> tf.data.Dataset:
    homes = tf.constant(home)
    own = numbered.filter(lambda index, _: homes[index] == number)
    if load is None:
        own = own.map(lambda _, element: element)
    else:
        own = own.map(
            lambda _, element: _apply(load, element),
            num_parallel_calls=PARALLEL_CALLS,
            deterministic=True,
        )
    return own.apply(tf.data.experimental.assert_cardinality(length))


def _apply(function: Callable[..., Any], element: Any) -> Any:
    """Calls a function as `Dataset.map` does: the components of a tuple are its arguments."""
    return function(*element) if isinstance(element, tuple) else function(element)
