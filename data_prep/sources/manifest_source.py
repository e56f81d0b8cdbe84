"""Images listed in a manifest: read at random, decoded in the graph, kept decoded when they fit."""

import hashlib
import logging
import threading
from collections.abc import Sequence
from typing import Literal

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import image_facts
from data_prep.phrases import counted
from data_prep.reading.headers import find_undecodable
from data_prep.sources.decoding import PixelCache, decode_file
from data_prep.sources.order import Sampler, ordered_elements
from data_prep.sources.source import (
    PARALLEL_CALLS,
    Element,
    Source,
    random_labels,
    resolve_channels,
)

_LOGGER = logging.getLogger(__name__)

CACHE_BUDGET = 2**30
"""Most bytes of decoded images that `cache="auto"` keeps in memory."""


class ManifestSource(Source):
    """The images of a manifest.

    Grey images become 1 channel, or 3 when any image has colour. With `cache` the images are
    decoded once, in parallel, on first use, and then live in memory.

    Attributes:
        manifest: The manifest; `index` is a position in it.
        sizes: Height and width of every image, int32 [n, 2].
        cached: True if decoded images are kept in memory.
        sampler: Order of the images in training, if not all in turn; see `ordered_elements`.
    """

    def __init__(
        self,
        manifest: Manifest,
        class_names: Sequence[str] | None = None,
        channels: int | str = "auto",
        cache: Literal["auto", "true", "false"] = "auto",
        labels: Literal["given", "random"] = "given",
    ):
        """Reads the headers of all images.

        Args:
            manifest: The images.
            class_names: Classes that labels are numbered by; None = those of the manifest.
            channels: "auto", or the wanted number.
            cache: "auto" keeps decoded images that take at most `CACHE_BUDGET` bytes.
            labels: "random" draws a label for each index from the seed, whatever the image: a
                control that shows what the labels are worth.

        Raises:
            UserError: No or unreadable images, impossible channels, unknown labels.
        """
        if not len(manifest):
            raise UserError("no images to read")
        facts = image_facts(manifest)
        self.manifest = manifest
        self.num_examples = len(manifest)
        self.class_names = tuple(manifest.class_names if class_names is None else class_names)
        self.channels = resolve_channels(channels, facts.channels)
        self.image_dtype = tf.uint8 if facts.bits == 8 else tf.float32
        self.sizes = np.stack([facts.survey.height, facts.survey.width], axis=1)
        self._files = manifest.files()
        self._decoders = facts.survey.decoder
        self._declared = {
            name: [getattr(record, name) for record in manifest.records]
            for name in ("reading", "tile")
        }
        self._present = tuple(np.unique(self._decoders).tolist())
        self._labels = manifest.label_indices(self.class_names)
        self._random_labels = labels == "random"
        if self._random_labels and not self.class_names:
            raise UserError("random labels need classes to draw from; give their number")
        self._decoded_bytes = facts.total_pixels * self.channels * self.image_dtype.size
        self.cached = cache == "true" or (cache == "auto" and self._decoded_bytes <= CACHE_BUDGET)
        self._cache: PixelCache | None = None
        self.sampler: Sampler | None = None
        self._lock = threading.Lock()
        self.identity = self._identity()

    def _identity(self) -> str:
        parts = (self.manifest.sha256(), *self.class_names, self.channels, self._random_labels)
        return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()

    def elements(
        self,
        *,
        seed: int,
        shuffle: bool,
        start: int,
        batch_size: int,
        shard: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        """See `Source.elements`; here any `start` is reached at once.

        Raises:
            UserError: Also when an image cannot be decoded while the cache is filled.
        """
        self.prepare()
        return ordered_elements(
            self.num_examples,
            self._columns(seed),
            seed=seed,
            shuffle=shuffle,
            start=start,
            batch_size=batch_size,
            shard=shard,
            sampler=self.sampler,
        )

    def _columns(self, seed: int) -> dict[str, tf.Tensor]:
        with tf.device("CPU:0"):
            columns = {"label": tf.constant(self.labels(seed))}
            return columns if self.cached else columns | self._file_columns()

    def _file_columns(self) -> dict[str, tf.Tensor]:
        """Returns the facts of every image that decoding needs, as columns."""
        columns = {"path": tf.constant(self._files)}
        if len(self._present) > 1:
            columns["decoder"] = tf.constant(self._decoders)
        used = {name: texts for name, texts in self._declared.items() if any(texts)}
        return columns | {name: tf.constant(texts) for name, texts in used.items()}

    def prepare(self) -> None:
        """Decodes the images that are to be kept in memory, if that has not been done yet.

        Raises:
            UserError: An image cannot be decoded.
        """
        if self.cached:
            self._filled_cache()

    def element(self, index: tf.Tensor) -> Element:
        """The element of the example with this number, int64 scalar; graph code."""
        with tf.device("CPU:0"):
            columns = {} if self.cached else self._file_columns()
        return {"index": index, **{name: tf.gather(c, index) for name, c in columns.items()}}

    def labels(self, seed: int = 0) -> np.ndarray:
        """Labels by index, int64 [num_examples]; the seed matters for random labels only."""
        if not self._random_labels:
            return self._labels
        return random_labels(seed, self.num_examples, len(self.class_names))

    @property
    def cache_bytes(self) -> int:
        """Bytes that decoded images take, or will take, in memory; 0 if none are kept."""
        return int(self._decoded_bytes) if self.cached else 0

    @tf.autograph.experimental.do_not_convert
    def decode(self, element: Element) -> tf.Tensor:
        """See `Source.decode`."""
        if self.cached:
            return self._filled_cache().image(element["index"])
        return self._decode(element)

    def _decode(self, element: Element) -> tf.Tensor:
        return decode_file(
            element["path"],
            element.get("decoder", tf.constant(self._present[0])),
            self._present,
            self.channels,
            self.image_dtype,
            element.get("reading", ""),
            element.get("tile", ""),
        )

    def _filled_cache(self) -> PixelCache:
        with self._lock, tf.init_scope(), tf.device("CPU:0"):
            if self._cache is None:
                size = self._decoded_bytes / 2**20
                _LOGGER.info(
                    "decoding %s into memory, %.0f MiB", counted(self.num_examples, "image"), size
                )
                images = tf.data.Dataset.from_tensor_slices(self._file_columns()).map(
                    tf.autograph.experimental.do_not_convert(self._decode),
                    num_parallel_calls=PARALLEL_CALLS,
                    deterministic=True,
                )
                try:
                    self._cache = PixelCache(
                        images, self.num_examples, self.channels, self.image_dtype
                    )
                except tf.errors.OpError as error:
                    raise self.diagnose() or error from None
            return self._cache

    def diagnose(self) -> UserError | None:
        """See `Source.diagnose`."""
        with tf.device("CPU:0"):
            columns = self._file_columns()

        def decode(index: int) -> None:
            with tf.device("CPU:0"):
                self._decode({name: values[index] for name, values in columns.items()})

        return find_undecodable(self._files, decode)
