"""NumPy's own files: one array (NPY) or several in an archive (NPZ)."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.formats.source import FileSource, opened
from data_prep.reading import Reading

START = b"\x93NUMPY"
ARCHIVE_START = b"PK\x03\x04"


@contextmanager
def open_array(source: FileSource, reading: Reading) -> Iterator[np.ndarray]:
    """The array of an NPY file, mapped into memory if it is on disk."""
    try:
        if isinstance(source, str):
            array = np.load(source, mmap_mode="r", allow_pickle=False)
        else:
            array = np.load(source, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError) as error:
        raise UserError(f"NPY cannot be read ({_first_line(error)})") from None
    yield array


@contextmanager
def open_archive(source: FileSource, reading: Reading) -> Iterator[np.ndarray]:
    """The named array of an NPZ file, or its only one."""
    try:
        # np.load would leave a file of its own open if it is no archive.
        with opened(source) as stream, np.load(stream, allow_pickle=False) as archive:
            array = archive[choose(reading.array, archive.files, "NPZ")]
    except (ValueError, EOFError, SyntaxError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"NPZ cannot be read ({_first_line(error)})") from None
    yield array


def choose(wanted: str, names: list[str], kind: str) -> str:
    """The array that is meant: the named one, or the only one.

    Raises:
        UserError: No such array, or several and none named.
    """
    known = ", ".join(names[:8]) or "none"
    if wanted:
        if wanted not in names:
            raise UserError(f"{kind} has no array {wanted!r} (its arrays: {known})")
        return wanted
    if len(names) != 1:
        raise UserError(f"{kind} holds {len(names)} arrays ({known}); name one, --array_name=NAME")
    return names[0]


def _first_line(error: Any) -> str:
    return str(error).partition("\n")[0]
