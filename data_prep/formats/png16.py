"""16-bit PNG with colour or alpha, of which Pillow would drop the low bytes."""

import struct
import zlib

import numpy as np

from data_prep.errors import UserError

_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}
_START = 8


def read_png16(contents: bytes) -> np.ndarray:
    """The pixels of a 16-bit PNG (PNG specification, second edition, sections 7 and 9).

    Args:
        contents: The whole file.

    Returns:
        uint16 [H, W, samples], alpha last where there is any.

    Raises:
        UserError: Damaged, or interlaced.
    """
    try:
        width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", contents, 16)
        if bits != 16 or interlaced:
            raise UserError("interlaced 16-bit PNG is not supported")
        size = 2 * _SAMPLES[colour]
        lines = np.frombuffer(zlib.decompress(_image_data(contents)), np.uint8)
        lines = lines[: height * (1 + width * size)].reshape(height, 1 + width * size)
    except (struct.error, zlib.error, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot be decoded ({error})") from None
    filtered = lines[:, 1:].reshape(height, width, size)
    return _unfilter(filtered, lines[:, 0]).view(">u2").astype(np.uint16)


def _image_data(contents: bytes) -> bytes:
    parts, position = [], _START
    while position + 8 <= len(contents):
        length, name = struct.unpack_from(">I4s", contents, position)
        if name == b"IDAT":
            parts.append(contents[position + 8 : position + 8 + length])
        position += length + 12
    return b"".join(parts)


def _unfilter(filtered: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Undoes the filters of all lines, one diagonal of pixels after the other.

    A pixel needs those to its left, above, and above left: all lie on earlier diagonals.

    Args:
        filtered: uint8 [H, W, bytes of a pixel].
        kinds: Filter of every line, uint8 [H].
    """
    height, width, size = filtered.shape
    # A line and a column of zeros before the first ones.
    out = np.zeros((height + 1, width + 1, size), np.int16)
    for diagonal in range(height + width - 1):
        row = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        column = diagonal - row
        left, up, corner = out[row + 1, column], out[row, column + 1], out[row, column]
        kind = kinds[row][:, np.newaxis]
        guess = np.choose(kind, [0, left, up, (left + up) >> 1, _paeth(left, up, corner)])
        out[row + 1, column + 1] = (filtered[row, column] + guess) & 0xFF
    return np.ascontiguousarray(out[1:, 1:].astype(np.uint8))


def _paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Whichever neighbour is nearest to left + up - corner; ties go in this order."""
    to_left, to_up = np.abs(up - corner), np.abs(left - corner)
    to_corner = np.abs(left + up - 2 * corner)
    take_left = (to_left <= to_up) & (to_left <= to_corner)
    return np.where(take_left, left, np.where(to_up <= to_corner, up, corner))
