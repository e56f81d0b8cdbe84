"""WebP files, by libwebp through imagecodecs; of an animation the first frame."""

import struct
from typing import BinaryIO

import imagecodecs
import numpy as np

from data_prep.errors import UserError
from data_prep.reading.formats.picture import Decoder, Picture, exif_orientation

_HAS_EXIF = 0x08


def starts_webp(start: bytes) -> bool:
    """Returns True if a file that begins with these bytes, 12 or more, is a WebP."""
    return start[:4] == b"RIFF" and start[8:12] == b"WEBP"


def read_facts(stream: BinaryIO, size: int) -> Picture:
    """The facts from the first chunk (RFC 9649, section 2), and from the chunk of EXIF.

    Raises:
        UserError: Truncated, or of an unknown kind.
        struct.error: Truncated.
    """
    stream.seek(4)
    (length,) = struct.unpack("<I", stream.read(4))
    if length + 8 > size:
        raise UserError("truncated")
    stream.seek(12)
    name, start = stream.read(4), stream.read(14)
    orientation = 1
    if name == b"VP8X":
        flags = start[4]
        width = int.from_bytes(start[8:11], "little") + 1
        height = int.from_bytes(start[11:14], "little") + 1
        if flags & _HAS_EXIF:
            orientation = _orientation(stream, size)
    elif name == b"VP8L":
        (packed,) = struct.unpack_from("<I", start, 5)
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    elif name == b"VP8 ":
        sides = struct.unpack("<HH", start[10:14])
        width, height = (side & 0x3FFF for side in sides)
    else:
        raise UserError("damaged header")
    return Picture(height, width, 3, 8, Decoder.PYTHON, orientation)


def _orientation(stream: BinaryIO, size: int) -> int:
    position = 12
    while position + 8 <= size:
        stream.seek(position)
        name, length = struct.unpack("<4sI", stream.read(8))
        if name == b"EXIF":
            # Some writers put the marker of a JPEG before it.
            return exif_orientation(stream.read(length).removeprefix(b"Exif\x00\x00"))
        position += 8 + length + length % 2
    return 1


def read_pixels(stream: BinaryIO) -> np.ndarray:
    """Colours without alpha, uint8 [H, W, 3].

    Raises:
        UserError: The file cannot be decoded.
    """
    stream.seek(0)
    try:
        pixels: np.ndarray = imagecodecs.webp_decode(stream.read(), index=0)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot be decoded ({error})") from None
    return np.ascontiguousarray(pixels[:, :, :3])
