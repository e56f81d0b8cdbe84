"""Sources that can only be read from front to back, such as TFRecord files."""

from abc import abstractmethod
from typing import Literal

import tensorflow as tf

from data_prep.errors import UserError
from data_prep.reading.survey import in_short
from data_prep.sources.decoding import decode_bytes
from data_prep.sources.order import check_layout, shuffle_key
from data_prep.sources.source import Element, Source, random_labels

SHUFFLE_BYTES = 2**29
"""Encoded images held at once for shuffling; a smaller set is shuffled as a whole."""

_LEAST_BUFFER = 1024
# Shards of before hold images of several bands as samples whose meaning TIFF cannot say.
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
            key: uint32 [3]; what may be read in any order, such as files, comes in one that is a
                function of the key. None = as it is stored.
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
