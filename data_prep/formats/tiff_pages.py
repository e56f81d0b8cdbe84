"""The chain of pages of a TIFF, walked before anything else is read of it."""

import struct
from typing import BinaryIO

from data_prep.errors import UserError


def check_pages(stream: BinaryIO) -> None:
    """Refuses a file whose pages never end or overlap, over which readers would go for hours.

    Args:
        stream: A TIFF or BigTIFF; a chain that leads out of the file ends there.

    Raises:
        UserError: A page comes twice in the chain, or there are more pages than a file
            of this size has room for.
    """
    size = stream.seek(0, 2)
    stream.seek(0)
    start = stream.read(16)
    order = "<" if start.startswith(b"II") else ">"
    big = start[2:4] in (b"+\x00", b"\x00+")
    number, offset, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    numbers, offsets = struct.Struct(order + number), struct.Struct(order + offset)
    place = 8 if big else 4
    seen: set[int] = set()
    room = size
    while True:
        stream.seek(place)
        link = stream.read(offsets.size)
        if len(link) < offsets.size:
            return
        (page,) = offsets.unpack(link)
        if not page or page + numbers.size > size:
            return
        stream.seek(page)
        (entries,) = numbers.unpack(stream.read(numbers.size))
        room -= numbers.size + entry * entries + offsets.size
        if page in seen or room < 0:
            raise UserError("damaged TIFF: its pages go round in a circle, or overlap")
        seen.add(page)
        place = page + numbers.size + entry * entries
