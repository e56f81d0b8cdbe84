"""The chain of pages of a TIFF, walked before anything else is read of it."""

import os
import struct
from functools import lru_cache
from typing import BinaryIO

from data_prep.errors import UserError


def check_pages(stream: BinaryIO) -> tuple[int, ...]:
    """Refuses a file whose pages never end or overlap, which would keep readers busy for hours.

    The chain of a file on disk is walked once, not for each of its pages.

    Args:
        stream: A TIFF or BigTIFF; a chain that leads out of the file ends there.

    Returns:
        Where the pages begin, in bytes.

    Raises:
        UserError: A page comes twice in the chain, or there are more pages than a file
            of this size has room for.
    """
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # in memory
        return _walked(stream)
    return _of_file(_Open(stream), status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


class _Open:
    """An open file as a cache key: all are equal, and a stamp beside it tells files apart."""

    def __init__(self, stream: BinaryIO):
        self.stream: BinaryIO | None = stream

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Open)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=64)
def _of_file(file: _Open, *stamp: int) -> tuple[int, ...]:
    stream, file.stream = file.stream, None  # the cache keeps `file`
    assert stream is not None
    return _walked(stream)


def _walked(stream: BinaryIO) -> tuple[int, ...]:
    """`check_pages`, of a file or of bytes in memory."""
    size = stream.seek(0, 2)
    stream.seek(0)
    start = stream.read(16)
    order = "<" if start.startswith(b"II") else ">"
    big = start[2:4] in (b"+\x00", b"\x00+")
    number, offset, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    numbers, offsets = struct.Struct(order + number), struct.Struct(order + offset)
    place = 8 if big else 4
    seen: dict[int, None] = {}
    room = size
    while True:
        stream.seek(place)
        link = stream.read(offsets.size)
        if len(link) < offsets.size:
            return tuple(seen)
        (page,) = offsets.unpack(link)
        if not page or page + numbers.size > size:
            return tuple(seen)
        stream.seek(page)
        (entries,) = numbers.unpack(stream.read(numbers.size))
        room -= numbers.size + entry * entries + offsets.size
        if page in seen or room < 0:
            raise UserError("damaged TIFF: its pages go round in a circle, or overlap")
        seen[page] = None
        place = page + numbers.size + entry * entries
