"""Sources that are read from front to back: TFRecord shards and TensorFlow Datasets."""

import hashlib
import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.reading.headers import Decoder, in_short
from data_prep.sources.decoding import decode_bytes
from data_prep.sources.order import check_layout, ordered_elements, shuffle_key, shuffled_index
from data_prep.sources.source import (
    PARALLEL_CALLS,
    Element,
    Source,
    random_labels,
    resolve_channels,
)
from data_prep.sources.tfrecord import damage_error, damaged_shards, read_facts, wrong_sizes

SHUFFLE_BYTES = 2**29
"""Encoded images held at once for shuffling; a smaller set is shuffled as a whole."""

_LEAST_BUFFER = 1024
# Old shards hold images of several bands as samples whose meaning TIFF cannot say.
_BANDS = "extra=band"


class StreamSource(Source):
    """Records in a fixed order, shuffled epoch by epoch in a buffer.

    The buffer of an epoch is seeded by (run seed, epoch), so the order is a pure function of seed
    and position here too. To start at a position, the records before it in its epoch are read
    again, undecoded; every shard reads all records and passes on its own rows.
    """

    shuffle_buffer: int
    _present: tuple[int, ...]
    _random_labels: bool = False

    @abstractmethod
    def _records(self, key: tf.Tensor | None = None) -> tf.data.Dataset:
        """All records: dictionaries of `index`, `encoded`, `label` and perhaps `decoder`.

        Args:
            key: uint32 [3]; files, and all else that may be read in any order, come in an order
                that is a function of the key. None = the order in which they are stored.
        """

    def _set_shuffle_buffer(self, encoded_bytes: int) -> None:
        mean = max(1, encoded_bytes // self.num_examples)
        self.shuffle_buffer = min(self.num_examples, max(_LEAST_BUFFER, SHUFFLE_BYTES // mean))

    def _set_random_labels(self, labels: Literal["given", "random"]) -> None:
        self._random_labels = labels == "random"
        if self._random_labels and not self.class_names:
            raise UserError("random labels need classes to draw from; the data names none")

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
        check_layout(batch_size, start, shard)
        no_autograph = tf.autograph.experimental.do_not_convert
        count = self.num_examples
        if shuffle:
            epochs = tf.data.Dataset.counter(tf.constant(start // count, tf.int64))
            stream = epochs.flat_map(no_autograph(lambda epoch: self._epoch(epoch, seed)))
            stream = stream.skip(start % count)
        else:
            stream = self._of_epoch(tf.constant(0, tf.int64)).skip(start)
        worker, workers = shard
        rows = batch_size // workers
        if workers > 1:
            stream = stream.enumerate(start).filter(
                no_autograph(lambda position, _: position % batch_size // rows == worker)
            )
            stream = stream.map(no_autograph(lambda _, element: element))
        return self._with_random_labels(stream, seed)

    def _with_random_labels(self, elements: tf.data.Dataset, seed: int) -> tf.data.Dataset:
        """The elements, with other labels if the source draws them."""
        if not self._random_labels:
            return elements
        with tf.device("CPU:0"):
            drawn = tf.constant(random_labels(seed, self.num_examples, len(self.class_names)))
        return elements.map(
            tf.autograph.experimental.do_not_convert(lambda e: {**e, "label": drawn[e["index"]]})
        )

    def _of_epoch(self, epoch: tf.Tensor, key: tf.Tensor | None = None) -> tf.data.Dataset:
        return self._records(key).map(
            tf.autograph.experimental.do_not_convert(lambda record: {"epoch": epoch, **record})
        )

    def _epoch(self, epoch: tf.Tensor, seed: int) -> tf.data.Dataset:
        # tf.data mixes the program's global seed into every shuffle; the order must not hang on it.
        tf.compat.v1.get_default_graph().seed = 1
        words = shuffle_key(tf.constant(seed, tf.int64), epoch)
        return self._of_epoch(epoch, words).shuffle(
            self.shuffle_buffer, seed=tf.cast(words[0], tf.int64), reshuffle_each_iteration=False
        )

    @tf.autograph.experimental.do_not_convert
    def decode(self, element: Element) -> tf.Tensor:
        """See `Source.decode`."""
        decoder = element.get("decoder", tf.constant(self._present[0]))
        return decode_bytes(
            element["encoded"],
            decoder,
            self._present,
            self.channels,
            self.image_dtype,
            reading=_BANDS,
        )

    def diagnose(self) -> UserError | None:
        """See `Source.diagnose`."""
        try:
            for record in self._records():
                try:
                    self.decode(record)
                except tf.errors.OpError as error:
                    return UserError(
                        f"{self._record_name(record)} in {self._name()} cannot be decoded:"
                        f" {in_short(error)}"
                    )
        except tf.errors.OpError as error:
            return UserError(f"{self._name()} cannot be read: {in_short(error)}")
        return None

    def _record_name(self, record: Element) -> str:
        return f"record {int(record['index'])}"

    @abstractmethod
    def _name(self) -> str:
        """The set and split, as an error should call them."""


class NotPreparedError(UserError):
    """The data set is not on this machine."""


class TFDSSource(StreamSource):
    """One split of a data set of TensorFlow Datasets with a feature `image` and perhaps `label`.

    Attributes:
        split: The split, which may be sliced as TFDS allows, such as `train[:80%]`.
    """

    def __init__(
        self,
        name: str,
        data_dir: str | None = None,
        split: str = "train",
        *,
        channels: int | str = "auto",
        labels: Literal["given", "random"] = "given",
        download: bool = False,
    ):
        """Opens a prepared data set.

        Args:
            name: `name`, `name/config` or `name:version`.
            data_dir: Folder of prepared data sets; None = TFDS's own, usually
                ~/tensorflow_datasets.
            split: A split of the data set.
            channels: "auto", or the wanted number.
            labels: "random" draws labels from the seed instead (a control).
            download: Download and prepare the data set if it is not there.

        Raises:
            UserError: The data set is not there, or has no such split or no images.
        """
        builder = _open(name, data_dir, download)
        self.split = split
        self._builder = builder
        info = builder.info
        try:
            split_info = info.splits[split]
        except (KeyError, ValueError):
            known = ", ".join(info.splits) or "none"
            raise UserError(
                f"the data set {name!r} has no split {split!r} (its splits: {known})"
            ) from None
        image, label = _features(info, name)
        self._has_label = label is not None
        self.num_examples = split_info.num_examples
        if not self.num_examples:
            raise UserError(f"the split {split!r} of {name!r} is empty")
        self.class_names = tuple(label.names or ()) if label is not None else ()
        self.channels = resolve_channels(channels, image.shape[-1] or 3)
        self.image_dtype = tf.uint8 if _bits(image) == 8 else tf.float32
        self._present = (Decoder.RASTER if self.image_dtype == tf.uint8 else Decoder.PNG16,)
        self._set_shuffle_buffer(split_info.num_bytes)
        self._set_random_labels(labels)
        parts = (info.full_name, split, self.num_examples, self.channels, labels)
        self.identity = hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()

    def _records(self, key: tf.Tensor | None = None) -> tf.data.Dataset:
        import tensorflow_datasets as tfds

        wanted = {"image": True} | ({"label": True} if self._has_label else {})
        decoders = tfds.decode.PartialDecoding(
            wanted, decoders={"image": tfds.decode.SkipDecoding()}
        )
        config = tfds.ReadConfig(try_autocache=False, skip_prefetch=True)
        records = self._builder.as_dataset(
            split=self.split, shuffle_files=False, decoders=decoders, read_config=config
        )

        def rename(index: tf.Tensor, record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            label = tf.cast(record.get("label", -1), tf.int64)
            return {"index": index, "encoded": record["image"], "label": label}

        return records.enumerate().map(tf.autograph.experimental.do_not_convert(rename))

    def _name(self) -> str:
        return f"{self._builder.info.full_name} of split {self.split}"


def _open(name: str, data_dir: str | None, download: bool) -> Any:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    folder = os.path.expanduser(data_dir) if data_dir else None
    try:
        # From the prepared files alone: tfds.builder would ask the network about unknown names.
        return read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError:
        pass
    except ValueError as error:
        raise UserError(f"data set {name!r}: {_first_line(error)}") from None
    if not download:
        where = folder or tfds.core.constants.DATA_DIR
        raise NotPreparedError(
            f"--dataset={name}: is not prepared in {where}; check the name and --data_dir, or give"
            " --download"
        )
    try:
        builder = tfds.builder(name, data_dir=folder)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise UserError(f"data set {name!r}: {_first_line(error)}") from None
    try:
        builder.download_and_prepare()
    except Exception as error:  # Network, disk, checksums, files to be fetched by hand, ...
        problem = _first_line(error)
        raise UserError(f"data set {name!r} could not be prepared: {problem}") from error
    return builder


def _features(info: Any, name: str) -> tuple[Any, Any]:
    import tensorflow_datasets as tfds

    is_dict = isinstance(info.features, tfds.features.FeaturesDict)
    features = dict(info.features.items()) if is_dict else {}
    image = features.get("image")
    if not isinstance(image, tfds.features.Image) or _bits(image) not in (8, 16):
        raise UserError(f"the data set {name!r} has no feature 'image' of 8 or 16 bits")
    label = features.get("label")
    return image, label if isinstance(label, tfds.features.ClassLabel) else None


def _bits(image: Any) -> int:
    dtype = np.dtype(image.np_dtype)
    return 8 * dtype.itemsize if dtype.kind == "u" else 0


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_FEATURES = {
    "image/index": tf.io.FixedLenFeature([], tf.int64),
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64, default_value=-1),
    "image/decoder": tf.io.FixedLenFeature([], tf.int64, default_value=0),
}
_SHARDS_AT_A_TIME = 8


class TFRecordSource(StreamSource):
    """One split of a sharded image set.

    A set of at most `SHUFFLE_BYTES` encoded bytes is read once, several shards at a time, and then
    seen in exactly the order in which `ManifestSource` would show the files. The shards of a larger
    set come in another order every epoch, several of them interleaved, and pass through the shuffle
    buffer. Either way `index` is the place of the image in the manifest that the shards were made
    from, and the order is a function of seed and position.

    Attributes:
        split: The split.
        files: The shards, in order.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str = "",
        *,
        channels: int | str = "auto",
        labels: Literal["given", "random"] = "given",
    ):
        """Reads `dataset.json` and compares the sizes of the shards with it.

        Args:
            folder: Folder of the shards.
            split: A split; empty = the only one.
            channels: "auto", or the wanted number.
            labels: "random" draws labels from the seed instead (a control).

        Raises:
            UserError: No shards there, shards missing or cut short, or no such split.
        """
        self.class_names, splits = read_facts(folder)
        known = ", ".join(splits)
        if not split and len(splits) > 1:
            raise UserError(f"{folder} has several splits ({known}); name one of them")
        name = split or next(iter(splits))
        if name not in splits:
            raise UserError(f"{folder} has no split {split!r} (its splits: {known})")
        facts = splits[name]
        self.split = name
        self._folder = Path(folder).expanduser().absolute()
        self._shards = facts.shards
        self.files = tuple(str(self._folder / file) for file in facts.files)
        problems = wrong_sizes(self._folder, facts.shards)
        if problems:
            raise damage_error(self._folder, problems)
        self.num_examples = facts.num_examples
        self.channels = resolve_channels(channels, facts.channels)
        self.image_dtype = tf.uint8 if facts.bits == 8 else tf.float32
        self._present = facts.decoders
        self._set_shuffle_buffer(facts.encoded_bytes)
        self._set_random_labels(labels)
        parts = (facts.sha256, name, len(facts.files), self.channels, labels, *self.class_names)
        self.identity = hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()

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
        if self.shuffle_buffer < self.num_examples:
            return super().elements(
                seed=seed, shuffle=shuffle, start=start, batch_size=batch_size, shard=shard
            )
        check_layout(batch_size, start, shard)
        count = self.num_examples

        def in_order(records: Element) -> Element:
            by_index = tf.argsort(records.pop("index"))
            return {name: tf.gather(column, by_index) for name, column in records.items()}

        def ordered(columns: Element) -> tf.data.Dataset:
            return ordered_elements(
                count,
                columns,
                seed=seed,
                shuffle=shuffle,
                start=start,
                batch_size=batch_size,
                shard=shard,
            )

        no_autograph = tf.autograph.experimental.do_not_convert
        # All records in one element of the pipeline, which is gone when the pipeline is.
        columns = self._records().batch(count, drop_remainder=True).map(no_autograph(in_order))
        return self._with_random_labels(columns.flat_map(no_autograph(ordered)), seed)

    def _records(self, key: tf.Tensor | None = None) -> tf.data.Dataset:
        def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
            record = tf.io.parse_single_example(serialized, _FEATURES)
            element = {
                "index": record["image/index"],
                "encoded": record["image/encoded"],
                "label": record["image/class/label"],
            }
            if len(self._present) > 1:
                element["decoder"] = tf.cast(record["image/decoder"], tf.int32)
            return element

        number = len(self.files)
        files = tf.constant(self.files)
        if key is not None:
            seed = tf.cast(key[1], tf.int64)
            files = tf.gather(files, shuffled_index(tf.range(number, dtype=tf.int64), seed, number))
        records = tf.data.Dataset.from_tensor_slices(files).interleave(
            tf.data.TFRecordDataset,
            cycle_length=min(number, _SHARDS_AT_A_TIME),
            num_parallel_calls=min(number, PARALLEL_CALLS),
            deterministic=True,
        )
        return records.map(tf.autograph.experimental.do_not_convert(parse))

    def diagnose(self) -> UserError | None:
        """See `Source.diagnose`; compares the shards with their checksums first."""
        problems = damaged_shards(self._folder, self._shards)
        return damage_error(self._folder, problems) if problems else super().diagnose()

    def _record_name(self, record: Element) -> str:
        index = int(record["index"])
        for serialized in tf.data.TFRecordDataset(list(self.files)):
            feature = tf.train.Example.FromString(serialized.numpy()).features.feature
            if feature["image/index"].int64_list.value[0] == index:
                return feature["image/filename"].bytes_list.value[0].decode()
        return super()._record_name(record)

    def _name(self) -> str:
        return f"{self._folder} of split {self.split}"
