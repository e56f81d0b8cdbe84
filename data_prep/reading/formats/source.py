"""Sources that readers take: the name of a file or an open file, perhaps packed (gzip, bzip2)."""

import bz2
import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, TypeAlias

from data_prep.errors import UserError
from data_prep.reading.limits import ReadLimits

FileSource: TypeAlias = str | BinaryIO

GZIP_START = b"\x1f\x8b"
BZIP2_START = b"BZh"
_PIECE = 2**20


@contextmanager
def opened(source: FileSource) -> Iterator[BinaryIO]:
    """The source as an open file, at its beginning."""
    if isinstance(source, str):
        with open(source, "rb") as stream:
            yield stream
    else:
        source.seek(0)
        yield source


def file_size(stream: BinaryIO) -> int:
    """Bytes of an open file; its place stays."""
    place = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(place)
    return size


class _Bounded:
    """Lets a file that unpacks while it is read give no more than its limits allow."""

    limits: ReadLimits

    def read(self, size: int | None = -1) -> bytes:
        place = self.tell()  # type: ignore[attr-defined]
        room = max(0, self.limits.max_bytes - place) + 1
        wanted = room if size is None or size < 0 else min(size, room)
        data: bytes = super().read(wanted)  # type: ignore[misc]
        if len(data) == room:
            self.limits.check_bytes(place + room)
        return data


class _Gzip(_Bounded, gzip.GzipFile):
    pass


class _Bzip2(_Bounded, bz2.BZ2File):
    pass


def unpacked(stream: BinaryIO, start: bytes, limits: ReadLimits) -> Any:
    """The content of a packed file, unpacked as it is read.

    Args:
        stream: The packed file, at its beginning.
        start: Its first bytes, which tell gzip from bzip2.
        limits: Bounds on the size it may unpack to; reading further raises `UserError`.

    Returns:
        An open file; None for a file that is not packed.
    """
    if start.startswith(GZIP_START):
        packed: _Gzip | _Bzip2 = _Gzip(fileobj=stream, mode="rb")
    elif start.startswith(BZIP2_START):
        packed = _Bzip2(stream)
    else:
        return None
    packed.limits = limits
    return packed


def read_to_end(stream: IO[bytes]) -> None:
    """Unpacks the rest of a file, so that the checksums at its end are compared."""
    while stream.read(_PIECE):
        pass


def exactly(stream: IO[bytes], number: int) -> bytes:
    """The next bytes.

    Raises:
        UserError: There are fewer.
    """
    data = stream.read(number)
    if len(data) < number:
        raise UserError("truncated")
    return data
