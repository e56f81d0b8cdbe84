"""Images from TFRecord shards that `tfrecord.write_shards` wrote."""

import hashlib
import os
from pathlib import Path
from typing import Literal

import tensorflow as tf

from data_prep.errors import UserError
from data_prep.source import resolve_channels
from data_prep.stream_source import StreamSource
from data_prep.tfrecord import read_facts

_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64, default_value=-1),
    "image/decoder": tf.io.FixedLenFeature([], tf.int64, default_value=0),
}


class TFRecordSource(StreamSource):
    """One split of a sharded image set.

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
        """Reads what `dataset.json` says.

        Args:
            folder: Folder of the shards.
            split: A split; empty = the only one.
            channels: "auto", or the wanted number.
            labels: "random" draws labels from the seed instead (a control).

        Raises:
            UserError: No shards there, shards missing, or no such split.
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
        self.files = tuple(str(Path(folder).expanduser().absolute() / file) for file in facts.files)
        missing = [file for file in self.files if not os.path.exists(file)]
        if missing:
            raise UserError(f"{len(missing)} shards are missing, the first {missing[0]}")
        self.num_examples = facts.num_examples
        self.channels = resolve_channels(channels, facts.channels)
        self.image_dtype = tf.uint8 if facts.bits == 8 else tf.float32
        self._present = facts.decoders
        self._set_shuffle_buffer(facts.encoded_bytes)
        self._set_random_labels(labels)
        parts = (facts.sha256, name, len(facts.files), self.channels, labels, *self.class_names)
        self.identity = hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()

    def _records(self) -> tf.data.Dataset:
        def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
            record = tf.io.parse_single_example(serialized, _FEATURES)
            element = {"encoded": record["image/encoded"], "label": record["image/class/label"]}
            if len(self._present) > 1:
                element["decoder"] = tf.cast(record["image/decoder"], tf.int32)
            return element

        records = tf.data.TFRecordDataset(list(self.files), num_parallel_reads=None)
        return records.map(tf.autograph.experimental.do_not_convert(parse))

    def _name(self) -> str:
        return f"{os.path.dirname(self.files[0])} of split {self.split}"
