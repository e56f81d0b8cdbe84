"""Data sets prepared by TensorFlow Datasets; nothing is downloaded unless asked for."""

import hashlib
import os
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.reading.headers import Decoder
from data_prep.sources.source import resolve_channels
from data_prep.sources.streams import StreamSource


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
