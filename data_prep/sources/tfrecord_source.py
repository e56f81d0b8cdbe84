"""Images from TFRecord shards that `tfrecord_writer.write_shards` wrote."""

import hashlib
import os
from pathlib import Path
from typing import Literal

import tensorflow as tf

from data_prep.errors import UserError
from data_prep.sources.order import check_layout, ordered_elements, shuffled_index
from data_prep.sources.source import PARALLEL_CALLS, Element, resolve_channels
from data_prep.sources.streams import StreamSource
from data_prep.sources.tfrecord import damage_error, damaged_shards, read_facts, wrong_sizes

_FEATURES = {
    "image/index": tf.io.FixedLenFeature([], tf.int64),
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64, default_value=-1),
    "image/decoder": tf.io.FixedLenFeature([], tf.int64, default_value=0),
}
_SHARDS_AT_A_TIME = 8


class TFRecordSource(StreamSource):
    """One split of a sharded image set.

    A set of at most `stream_source.SHUFFLE_BYTES` encoded bytes is read once, several shards at a
    time, and then seen in exactly the order in which `ManifestSource` would show the files. Of a
    larger one the shards come in another order every epoch, several of them interleaved, and pass
    through the shuffle buffer. Either way `index` is the place of the image in the manifest that
    the shards were made from, and the order a function of seed and position.

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
        """Reads what `dataset.json` says, and compares the sizes of the shards with it.

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
