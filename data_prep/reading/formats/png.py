"""PNG files, by libpng through imagecodecs; of an animated one the still image."""

import os
import struct
from typing import BinaryIO

import imagecodecs
import numpy as np

from data_prep.errors import UserError
from data_prep.reading.formats.picture import Decoder, Picture, exif_orientation

START = b"\x89PNG\r\n\x1a\n"
_END = b"IEND\xaeB`\x82"
_TAIL = 2**16
_FEW = 16  # chunks that may be gone over one by one
_KINDS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}
"""Colour type -> channels without alpha."""


def read_facts(stream: BinaryIO, size: int) -> Picture:
    """The facts from the chunks before the image data, and from the end of the file.

    Args:
        stream: The file.
        size: Its bytes.

    Raises:
        UserError: Truncated, without its palette, or of an unknown kind.
        struct.error: Truncated.
    """
    stream.seek(8)
    length, name, width, height, bits, color = struct.unpack(">I4sIIBB", stream.read(18))
    if name != b"IHDR" or length != 13 or color not in _KINDS or not width * height:
        raise UserError("damaged header")
    channels, position, orientation = _KINDS[color], 33, 1
    palette = None
    while True:
        stream.seek(position)
        length, name = struct.unpack(">I4s", stream.read(8))
        if name in (b"IDAT", b"IEND"):
            break
        if name == b"PLTE":
            palette = stream.read(length)
        elif name == b"eXIf":
            orientation = exif_orientation(stream.read(length))
        position += length + 12
    if color == 3:
        if palette is None:
            raise UserError("PNG without its palette")
        channels = 1 if palette_is_gray(palette) else 3
    orientation = _orientation_at_end(stream, position, length, size) or orientation
    if bits == 16:
        decoder = Decoder.PNG16
    else:
        decoder = Decoder.RASTER if color in (0, 4) else Decoder.PNG_COLOR
    if orientation != 1:
        decoder = Decoder.PYTHON
    return Picture(height, width, channels, 16 if bits == 16 else 8, decoder, orientation)


def _orientation_at_end(stream: BinaryIO, position: int, length: int, size: int) -> int:
    """The orientation noted behind the image data, 0 if none is; complains of a missing end.

    A large file has thousands of chunks, which are gone over only if there is a reason to.

    Args:
        stream: The file.
        position: Of the first chunk of image data.
        length: Of its data.
        size: Of the file.
    """
    if position + length + 24 == size:  # One chunk and the end.
        stream.seek(size - 8)
        if stream.read() == _END:
            return 0
    if size > _FEW * (length + 12):
        stream.seek(max(0, size - _TAIL))
        tail = stream.read()
        if _END in tail[-64:] and b"eXIf" not in tail:
            return 0
    chunks = _chunks_after(stream, position, size)
    if b"IEND" not in chunks:
        raise UserError("truncated")
    if b"eXIf" not in chunks:
        return 0
    place, length = chunks[b"eXIf"]
    stream.seek(place)
    return exif_orientation(stream.read(length))


def palette_is_gray(palette: bytes) -> bool:
    """Returns True if all entries of a palette, three bytes each, are grey."""
    return palette[0::3] == palette[1::3] == palette[2::3]


def _chunks_after(stream: BinaryIO, position: int, size: int) -> dict[bytes, tuple[int, int]]:
    """Chunks from a position on to the end of the image: name -> place and length of its data."""
    found: dict[bytes, tuple[int, int]] = {}
    while position + 12 <= size:
        stream.seek(position)
        length, name = struct.unpack(">I4s", stream.read(8))
        if position + length + 12 > size:
            break
        found.setdefault(name, (position + 8, length))
        position += length + 12
        if name == b"IEND":
            break
    return found


def read_pixels(stream: BinaryIO, channels: int) -> np.ndarray:
    """Pixels without alpha, [H, W, channels]: uint16 for 16 bits, else uint8 over its full range.

    Args:
        stream: The file.
        channels: As `read_facts` says.

    Raises:
        UserError: The file cannot be decoded.
    """
    stream.seek(0, os.SEEK_SET)
    try:
        pixels: np.ndarray = imagecodecs.png_decode(stream.read())
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot be decoded ({error})") from None
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    return np.ascontiguousarray(pixels[:, :, :channels])
