"""The sources of images: manifest, TensorFlow Datasets, TFRecord shards."""

from data_prep.manifest_source import ManifestSource
from data_prep.source import Element, Source
from data_prep.tfds_source import NotPreparedError, TFDSSource
from data_prep.tfrecord_source import TFRecordSource

__all__ = [
    "Element",
    "ManifestSource",
    "NotPreparedError",
    "Source",
    "TFDSSource",
    "TFRecordSource",
]
