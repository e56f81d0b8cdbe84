"""A small writer of PNG files of every kind that the specification knows (ISO/IEC 15948)."""

import struct
import zlib
from itertools import pairwise

import numpy as np

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type -> samples a pixel."""
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
          (1, 0, 2, 1))  # fmt: skip


def chunk(name: bytes, data: bytes) -> bytes:
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(
    values: np.ndarray,
    depth: int,
    color: int,
    *,
    interlaced: bool = False,
    filters: int = 0,
    before: tuple[bytes, ...] = (),
    after: tuple[bytes, ...] = (),
    data_chunks: int = 1,
) -> bytes:
    """The bytes of a file.

    Args:
        values: [H, W, samples] of integers below 2^depth; numbers of entries for a palette.
        depth: Bits a sample.
        color: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
        interlaced: Adam7.
        filters: Filter of the first line; the next lines take the next ones.
        before: Chunks before the image data, the palette's too.
        after: Chunks after it.
        data_chunks: Number of chunks that the image data are cut into.
    """
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    if interlaced:
        passes = [values[row::rows, column::columns] for row, column, rows, columns in _ADAM7]
    else:
        passes = [values]
    lines = b"".join(_filtered(part, depth, filters) for part in passes if part.size)
    packed = zlib.compress(lines)
    cuts = [len(packed) * part // data_chunks for part in range(data_chunks + 1)]
    data = [chunk(b"IDAT", packed[a:b]) for a, b in pairwise(cuts)]
    parts = [chunk(b"IHDR", header), *before, *data, *after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _filtered(values: np.ndarray, depth: int, first: int) -> bytes:
    height = len(values)
    lines = values.reshape(height, -1)
    if depth == 16:
        rows = lines.astype(">u2").view(np.uint8)
    elif depth == 8:
        rows = lines.astype(np.uint8)
    else:
        bits = np.unpackbits(lines.astype(np.uint8)[..., np.newaxis], axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(height, -1), axis=-1)
    step = max(1, values.shape[-1] * depth // 8)
    above = np.zeros(rows.shape[1], np.uint8)
    found = []
    for number, row in enumerate(rows):
        kind = (first + number) % 5
        found.append(bytes([kind]) + _filter(kind, row, above, step))
        above = row
    return b"".join(found)


def _filter(kind: int, row: np.ndarray, above: np.ndarray, step: int) -> bytes:
    left, corner = np.zeros((2, len(row)), np.int64)
    left[step:], corner[step:] = row[:-step], above[:-step]
    up = above.astype(np.int64)
    guess = left + up - corner
    distances = np.abs(np.stack([guess - left, guess - up, guess - corner]))
    paeth = np.choose(distances.argmin(axis=0), [left, up, corner])
    predicted = (np.zeros_like(up), left, up, (left + up) // 2, paeth)[kind]
    return ((row - predicted) & 0xFF).astype(np.uint8).tobytes()
