"""The table of a data set's images: found, paired, grouped, split, drawn from."""

from data_prep.manifest.manifest import Manifest, Record

__all__ = ["Manifest", "Record"]
