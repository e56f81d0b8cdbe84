"""From complete shards to the files of an embedding, a block at a time."""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.places import place_columns
from simclr_tf.embedding.shards import Shards
from simclr_tf.embedding.stored import FEATURES, MANIFEST, UNREADABLE, Stored
from simclr_tf.embedding.table import write_rows

_ROWS = 8192


def join_shards(
    shards: Shards, images: Manifest, folder: Path, target: Path | None = None
) -> Manifest:
    """Writes `features.npy` and `manifest.csv` from complete shards, a shard at a time.

    Args:
        shards: All of them there.
        images: Of the plan; those that could not be read are left out and listed in
            `unreadable.csv`.
        folder: Where to write.
        target: Where the files will lie in the end; None = in `folder`.

    Returns:
        The images that have features.

    Raises:
        UserError: No image could be read.
    """
    bad = shards.unreadable()
    if len(bad) == len(images):
        first = next(iter(bad))
        raise UserError(
            f"none of the images can be read; {images.records[first].name}: {bad[first]}"
        )
    kept = images.subset(r for row, r in enumerate(images.records) if row not in bad)
    first_rows, _ = shards.read(0)
    with (folder / FEATURES).open("wb") as file:
        _write_header(file, (len(kept), first_rows.shape[1]), first_rows.dtype)
        for shard in range(shards.plan.shards):
            rows, unreadable = shards.read(shard)
            good = np.setdiff1d(np.arange(len(rows)), list(unreadable)).astype(np.int64)
            np.ascontiguousarray(rows[good]).tofile(file)
    kept.save(folder / MANIFEST, place=target or folder)
    if bad:
        places = place_columns(images.subset(images.records[row] for row in bad))
        write_rows(folder / UNREADABLE, {**places, "problem": list(bad.values())})
    return kept


def write_archive(path: Path, stored: Stored) -> None:
    """Writes an NPZ, a block at a time, that `evaluation.embeddings.Embeddings.load` reads.

    It holds `features` [n, d], `labels` int64 [n] (positions among `class_names`, -1 = none),
    `indices` int64 [n], `class_names`, and `paths`, `splits` as texts [n].
    """
    names = stored.images.class_names
    arrays = {
        "labels": stored.images.label_indices(names),
        "indices": np.arange(len(stored)),
        "class_names": np.array(names, np.str_),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:

        def member(name: str, shape: tuple[int, ...], dtype: np.dtype,
                   blocks: Iterator[np.ndarray]) -> None:  # fmt: skip
            # A date that is always the same, as in NumPy.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                _write_header(file, shape, dtype)
                for block in blocks:
                    file.write(np.ascontiguousarray(block, dtype).tobytes())

        file = stored.features
        blocks = (file[slice(start, start + _ROWS)] for start in range(0, len(file), _ROWS))
        member("features", file.shape, file.dtype, blocks)
        for name, array in arrays.items():
            member(name, array.shape, array.dtype, iter((array,)))
        for name, column in (("paths", "path"), ("splits", "split")):
            texts = stored.columns[column]
            kind = np.dtype(f"<U{max(1, *map(len, texts))}")
            member(name, (len(texts),), kind, _text_blocks(texts, kind))


def _text_blocks(texts: Sequence[str], kind: np.dtype) -> Iterator[np.ndarray]:
    for start in range(0, len(texts), _ROWS):
        yield np.array(texts[start : start + _ROWS], kind)


def _write_header(file: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """The head of a `.npy` file, after which the numbers follow in order."""
    stream: BinaryIO = file
    facts = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(stream, facts)
