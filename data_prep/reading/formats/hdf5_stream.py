"""A file as the HDF5 library reads it, with the lists checked on which it would run in circles.

A damaged file can send the library round for ever, where nothing can interrupt it:

* In a *global heap* (signature `GCOL`; the sources of virtual data sets lie there) objects follow
  one another. One that takes no room is read again and again.
* In a *local heap* (`HEAP`; the names of links) free blocks point to one another. A circle is
  followed until the memory is full.

Both are looked at when the library first reads them. See the HDF5 File Format Specification,
version 3.0, sections II, III.D and III.E.
"""

import io
import os
from typing import Any, BinaryIO

from data_prep.errors import UserError

START = b"\x89HDF\r\n\x1a\n"
_GLOBAL, _LOCAL = b"GCOL", b"HEAP"
_LARGEST = 2**20  # the library takes more than that at a time for values only
_DAMAGED = "HDF5 cannot be read (damaged heap at byte {})"
_LAST_FREE = 1  # in place of the next free block


class CheckedStream(io.RawIOBase):
    """A stream for `h5py.File`, which tells the library of a damage before it acts on it.

    Args:
        stream: The file.

    Raises:
        UserError: By reading, and from h5py's calls that lead there: a heap runs in circles.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._begin, self._width, self._pointer = _layout(stream)
        self._known: set[int] = set()

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a place, as `io.IOBase.seek`."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """The place, as `io.IOBase.tell`."""
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer, as `io.RawIOBase.readinto`."""
        place = self._stream.tell()
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        if len(data) < _LARGEST:
            self._check(place, data)
            self._stream.seek(place + len(data))
        return len(data)

    def _check(self, place: int, data: bytes) -> None:
        """Looks at the heaps whose signature ends among these bytes."""
        self._stream.seek(max(0, place - 3))
        seen = self._stream.read(min(place, 3)) + data
        for signature, check in ((_GLOBAL, self._check_global), (_LOCAL, self._check_local)):
            found = seen.find(signature)
            while found >= 0:
                heap = max(0, place - 3) + found
                if heap not in self._known:
                    self._known.add(heap)
                    check(heap)
                found = seen.find(signature, found + 1)

    def _check_global(self, heap: int) -> None:
        head = self._at(heap + 4, 4)
        size = self._number(heap + 8, self._width)
        if head != b"\1\0\0\0" or heap + size > self._stream.seek(0, os.SEEK_END):
            return  # the library says so itself
        place = object_head = _aligned(8 + self._width)  # that of the heap is as long
        content = self._at(heap, size)
        while place + object_head <= size:
            index = int.from_bytes(content[place : place + 2], "little")
            length = int.from_bytes(content[place + 8 : place + 8 + self._width], "little")
            # The library counts modulo 2^64.
            step = (object_head + _aligned(length) if index else length) % 2**64
            if step == 0 or place + step > size:
                raise UserError(_DAMAGED.format(heap))
            place += step

    def _check_local(self, heap: int) -> None:
        fields = heap + 8
        if self._at(heap + 4, 4) != b"\0\0\0\0":
            return
        size = self._number(fields, self._width)
        free = self._number(fields + self._width, self._width)
        segment = self._begin + self._number(fields + 2 * self._width, self._pointer)
        passed: set[int] = set()
        while free != _LAST_FREE and free + 2 * self._width <= size:
            if free in passed:
                raise UserError(_DAMAGED.format(heap))
            passed.add(free)
            free = self._number(segment + free, self._width)

    def _at(self, place: int, number: int) -> bytes:
        self._stream.seek(place)
        return self._stream.read(number)

    def _number(self, place: int, width: int) -> int:
        return int.from_bytes(self._at(place, width), "little")


def _layout(stream: BinaryIO) -> tuple[int, int, int]:
    """Finds where HDF5 begins in a file, and the sizes of a length and an address, in bytes."""
    size, place = stream.seek(0, os.SEEK_END), 0
    while place < size:
        stream.seek(place)
        start = stream.read(16)
        if start.startswith(START) and len(start) == 16:
            address, length = (13, 14) if start[8] < 2 else (9, 10)
            return place, start[length], start[address]
        place = 2 * place or 512
    return 0, 8, 8


def _aligned(number: int) -> int:
    return (number + 7) // 8 * 8
