"""The columns that stand beside the features: what is known of every image, as CSV and Parquet."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.csv_files import csv_line, read_written
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.places import PLACE, place_columns
from simclr_tf.evaluation.blockwise import Features

Column = Sequence[str] | np.ndarray
Columns = Mapping[str, Column]

KNOWN = (*PLACE, "label", "split", "group", "case")
_ROWS = 8192


def known_columns(images: Manifest) -> dict[str, list[str]]:
    """What a manifest knows of its images: place, label and split, and where used group and case.

    Returns:
        Columns of texts, "" = not known.
    """
    records = images.records
    columns = place_columns(images)
    columns |= {name: [getattr(r, name) for r in records] for name in ("label", "split")}
    rest = {name: [getattr(r, name) for r in records] for name in ("group", "case")}
    return columns | {name: texts for name, texts in rest.items() if any(texts)}


def write_rows(path: Path, columns: Columns) -> None:
    """Writes columns of equal length as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(csv_line(columns))
        file.writelines(map(csv_line, zip(*columns.values(), strict=True)))


def read_rows(path: Path) -> dict[str, list[str]]:
    """Reads the columns of a CSV, as texts."""
    header, rows = read_written(path)
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


def write_parquet(path: Path, columns: Columns, features: Features, dtype: np.dtype) -> None:
    """Writes columns, and features as a column `embedding` of lists of fixed length.

    Args:
        path: The file.
        columns: Of length n; arrays of numbers keep their type, texts are texts.
        features: [n, d], gone over in blocks.
        dtype: Of the features as they are to be written.
    """
    value = pa.from_numpy_dtype(dtype)
    kind = pa.list_(value, features.shape[1])
    fields = [
        (name, pa.from_numpy_dtype(c.dtype) if isinstance(c, np.ndarray) else pa.string())
        for name, c in columns.items()
    ]
    schema = pa.schema([*fields, ("embedding", kind)])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(features), _ROWS):
            rows = slice(start, start + _ROWS)
            block = np.ascontiguousarray(features[rows].astype(dtype))
            arrays = [pa.array(c[rows], kind) for c, (_, kind) in zip(columns.values(), fields,
                                                                      strict=True)]  # fmt: skip
            flat = pa.array(block.ravel(), value)
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, features.shape[1]))
            writer.write_batch(pa.record_batch(arrays, schema=schema))
