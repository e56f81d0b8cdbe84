"""Common parts of the readers of pictures (JPEG, PNG, TIFF, ...): decoder, depth, orientation."""

import logging
import struct
import warnings
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

# Odd tags and chunks are common and harmless; files that cannot be read raise.
for _library in ("imagecodecs", "tifffile"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"PIL\.")


class Decoder(IntEnum):
    """Ways to decode a file: in the TensorFlow graph, or in Python.

    TFRecord shards keep these numbers.
    """

    RASTER = 0
    """JPEG of 8 bits; PNG of grey values of up to 8 bits; one op."""
    PNG16 = 1
    GIF = 2
    """Only in old shards: TensorFlow takes a first frame smaller than the picture for all of it."""
    BMP = 3
    PYTHON = 4
    """`images.read_image`."""
    DECLARED = 5
    """`images.read_image` with the record's `reading` and `tile`; arrays always."""
    JPEG_TILE = 6
    """A tile of a JPEG, of which no more than needed is decoded in the graph."""
    PNG_COLOR = 7
    """PNG of colours or a palette; TensorFlow's own way to grey would heed a gAMA chunk."""
    TURNED_2 = 12
    """JPEG of 8 bits with an EXIF orientation of 2; the rest alike."""
    TURNED_3 = 13
    TURNED_4 = 14
    TURNED_5 = 15
    TURNED_6 = 16
    TURNED_7 = 17
    TURNED_8 = 18


TURNED = {Decoder(10 + orientation): orientation for orientation in range(2, 9)}
"""Decoders of turned JPEGs -> EXIF orientation."""

DEEPEST = 32
"""Bits of a value that `Picture.bits` and `Header.bits` count at most."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Facts of a picture from its file.

    Attributes:
        height: Pixels, as stored.
        width: Pixels, as stored.
        channels: 1 grey, 3 colour (palettes expanded, alpha dropped), n bands of a TIFF.
        bits: Of a value as `value_bits` counts them.
        decoder: How to decode the file, if nothing is declared of it and it is upright.
        orientation: 1 to 8 as EXIF numbers them, 1 = upright.
    """

    height: int
    width: int
    channels: int
    bits: int
    decoder: Decoder
    orientation: int = 1


@dataclass(frozen=True, eq=False)
class Stored:
    """Values as a file stores them.

    Attributes:
        pixels: [H, W, C] of the type in the file, or a part of it.
        depth: Significant bits of a value.
    """

    pixels: np.ndarray
    depth: int


def value_bits(depth: int) -> int:
    """Bits to count for values of a depth: 8 = they fit uint8 exactly, more = they become float32.

    Of 1, 2 and 4 bits the greatest value divides 255. Of 3, 5, 6 and 7 bits it does not: 16.
    """
    if depth in (1, 2, 4, 8):
        return 8
    return min(max(depth, 16), DEEPEST) if depth < 8 else min(depth, DEEPEST)


_TURNS = {
    1: (False, False, False), 2: (False, False, True), 3: (False, True, True),
    4: (False, True, False), 5: (True, False, False), 6: (True, False, True),
    7: (True, True, True), 8: (True, True, False),
}  # fmt: skip


def steps_upright(orientation: int) -> tuple[bool, tuple[int, ...]]:
    """Returns the steps that turn a picture upright.

    Args:
        orientation: 1 to 8, tag 274 of TIFF 6.0 and EXIF 2.3: the sides at which the stored row 0
            and column 0 are to be seen.

    Returns:
        Whether to swap rows and columns first, and the axes to reverse then.
    """
    swap, rows, columns = _TURNS[orientation]
    return swap, tuple(axis for axis, flip in ((0, rows), (1, columns)) if flip)


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [H, W, C] as they are to be seen."""
    swap, flips = steps_upright(orientation)
    turned = pixels.swapaxes(0, 1) if swap else pixels
    return np.ascontiguousarray(np.flip(turned, flips)) if swap or flips else pixels


_ORIENTATION_TAG = 274


def exif_orientation(exif: bytes) -> int:
    """The orientation that a block of EXIF notes: tag 274 of its first directory.

    Args:
        exif: From its TIFF header on.

    Returns:
        1 to 8; 1 if there is none, or the block is damaged.
    """
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (place,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, place)
        for start in range(place + 2, place + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(order + "HH", exif, start)
            if tag == _ORIENTATION_TAG:
                form = {1: "B", 3: "H", 4: "I"}[kind]
                return valid_orientation(struct.unpack_from(order + form, exif, start + 8)[0])
    except (struct.error, KeyError):
        pass
    return 1


def valid_orientation(number: int) -> int:
    """The number if it is an orientation, else 1."""
    return number if number in _TURNS else 1
