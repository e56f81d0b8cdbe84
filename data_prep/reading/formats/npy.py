"""NumPy's own files: one array (NPY) or several in an archive (NPZ)."""

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from data_prep.errors import UserError, damage_refused
from data_prep.reading.formats.source import FileSource, exactly, file_size, opened
from data_prep.reading.limits import ReadLimits
from data_prep.reading.spec import Reading

START = b"\x93NUMPY"
ARCHIVE_START = b"PK\x03\x04"
_HEADER = 2**14  # NumPy refuses longer ones.
_NO_NUMBERS = (
    "holds Python objects instead of numbers, which are not unpacked, for they could run code; save"
    " the numbers: numpy.save(file, array.astype('float32'))"
)


@dataclass(frozen=True)
class _Layout:
    """Header of an NPY file.

    Attributes:
        shape: Of the array.
        dtype: Of its values.
        order: "C" or "F".
        start: Bytes before the first value.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    order: Any
    start: int

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


@contextmanager
def open_array(source: FileSource, reading: Reading, limits: ReadLimits) -> Iterator[np.ndarray]:
    """The array of an NPY file, mapped into memory if it is on disk."""
    with opened(source) as stream, damage_refused("NPY cannot be read"):
        layout = _layout(stream)
        left = file_size(stream) - layout.start
        if left < layout.size:
            raise UserError(
                f"NPY cannot be read (truncated: {left} of {layout.size} bytes of values are there)"
            )
        stream.seek(layout.start + layout.size)
        if stream.read(len(START)) == START:
            raise UserError(
                "NPY holds several arrays, one behind the other; stack them into one, or write"
                " them to an NPZ"
            )
        if isinstance(source, str) and layout.size:
            array: np.ndarray = np.memmap(
                source, layout.dtype, "r", layout.start, layout.shape, layout.order
            )
        else:
            stream.seek(layout.start)
            array = _as_array(stream.read(layout.size), layout)
    yield array


class _Member:
    """An array in an archive, unpacked when it is sliced.

    Attributes:
        shape: Of the array.
        dtype: Of its values.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str):
        self._archive, self._name = archive, name
        member = archive.getinfo(name)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(
                "NPZ packed in a way that NumPy does not use; write it with numpy.savez"
            )
        with archive.open(name) as stream:
            layout = _layout(stream)
        if member.file_size < layout.start + layout.size:
            raise UserError("NPZ cannot be read (truncated)")
        self._layout, self.shape, self.dtype = layout, layout.shape, layout.dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        with self._archive.open(self._name) as stream:
            exactly(stream, self._layout.start)
            values = exactly(stream, self._layout.size)
            stream.read(1)  # The check sum is compared at the end.
        return _as_array(values, self._layout)[index]


@contextmanager
def open_archive(source: FileSource, reading: Reading, limits: ReadLimits) -> Iterator[_Member]:
    """The named array of an NPZ file, or its only one."""
    with (
        opened(source) as stream,
        damage_refused("NPZ cannot be read"),
        zipfile.ZipFile(stream) as archive,
    ):
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        arrays = [name for name, member in members.items() if member.endswith(".npy")]
        yield _Member(archive, members[choose(reading.array, arrays, "NPZ")])


def _layout(stream: IO[bytes]) -> _Layout:
    """Reads the header of a file at its beginning."""
    header = io.BytesIO(stream.read(_HEADER))
    version = np.lib.format.read_magic(header)
    if version == (3, 0):
        raise UserError("NPY of records with named fields; save one array of numbers")
    if version not in ((1, 0), (2, 0)):
        raise UserError(f"NPY cannot be read (version {version[0]}.{version[1]} is not known)")
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, by_columns, dtype = read(header)
    if dtype.hasobject:
        raise UserError(_NO_NUMBERS)
    if any(length < 0 for length in shape):
        raise UserError("NPY cannot be read (negative length)")
    return _Layout(shape, dtype, "F" if by_columns else "C", header.tell())


def _as_array(values: bytes, layout: _Layout) -> np.ndarray:
    flat = np.frombuffer(values, layout.dtype, math.prod(layout.shape))
    return flat.reshape(layout.shape, order=layout.order)


def choose(wanted: str, names: list[str], kind: str) -> str:
    """Chooses an array of a file: the named one, or the only one.

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
