"""Facts of an image file from its first and last bytes: size, channels, depth, and if it is whole.

The content decides the format, not the file's ending (but for RAW files, which are declared). JPEG
and PNG, which make up nearly every large folder, are read here directly (some 20 microseconds a
file); the rest goes through Pillow, tifffile and `formats`.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_prep import tiff
from data_prep.errors import UserError, damage_refused
from data_prep.formats import arrays
from data_prep.formats.source import FileSource
from data_prep.formats.tiff_pages import check_pages
from data_prep.limits import ReadLimits
from data_prep.reading import Reading, parse_reading
from data_prep.tiles import check_inside, parse_box

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_JPEG_START = b"\xff\xd8"
_PLAIN_STARTS = (_JPEG_START, _PNG_SIGNATURE)
_AS_IT_IS = Reading()
_TAIL = 64
_GREY_MODES = {"1", "L", "LA", "I;16", "I;16B", "I", "F"}
# Start-of-frame markers; C4, C8 and CC in the same range mean other things.
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset(range(0xD0, 0xD8)) | {0x01}


class Decoder(IntEnum):
    """How a file is decoded: in the TensorFlow graph, or in Python."""

    RASTER = 0
    """8-bit JPEG and PNG, one op."""
    PNG16 = 1
    GIF = 2
    BMP = 3
    PYTHON = 4
    """`readers.read_image`."""
    DECLARED = 5
    """`readers.read_image` with the record's `reading` and `tile`; arrays always."""
    JPEG_TILE = 6
    """A tile of a JPEG, of which no more than needed is decoded in the graph."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of an image file says.

    Attributes:
        height: Pixels; the orientation noted in EXIF is not applied, here or anywhere else.
        width: Pixels.
        channels: 1 grey, 3 colour (palettes expanded, alpha dropped), n bands of a TIFF.
        bits: 8, 16 or 32 a channel; 32 after an intensity rule.
        decoder: How to decode the file.
    """

    height: int
    width: int
    channels: int
    bits: int
    decoder: Decoder


def read_header(
    path: str, reading: str = "", tile: str = "", limits: ReadLimits | None = None
) -> Header:
    """Reads the header of an image file and checks cheaply that the file is whole.

    Args:
        path: The file.
        reading: What is declared of it, as in a manifest.
        tile: Part that counts, as in a manifest.
        limits: Up to which size of the whole picture; None = any.

    Raises:
        UserError: A few words on what is wrong with the file, without its name.
    """
    try:
        with open(path, "rb") as stream:
            declared = parse_reading(reading) if reading else _AS_IT_IS
            header = parse_header(stream, declared, path, limits)
            if not tile:
                return header
            box = parse_box(tile)
            check_inside(box, header.height, header.width)
            stream.seek(0)
            cropped = header.decoder == Decoder.RASTER and stream.read(2) == _JPEG_START
            decoder = Decoder.JPEG_TILE if cropped else Decoder.DECLARED
            return replace(header, height=box.height, width=box.width, decoder=decoder)
    except FileNotFoundError:
        raise UserError("no such file") from None
    except OSError as error:
        raise UserError(error.strerror or str(error)) from None


def parse_header(
    stream: BinaryIO,
    reading: Reading = _AS_IT_IS,
    path: str = "",
    limits: ReadLimits | None = None,
) -> Header:
    """Like `read_header`, from an open file or from bytes in memory; `path` if it has one."""
    size = stream.seek(0, os.SEEK_END)
    if not size:
        raise UserError("empty file")
    stream.seek(0)
    start = stream.read(64)
    limits = limits or arrays.NO_LIMITS
    with damage_refused("damaged header"), _truncation_named():
        if not start.startswith(_PLAIN_STARTS) or reading.shape:
            source = path or stream
            if arrays.holds_array(start, source, reading):
                return _array(source, reading, limits)
        header = _picture(stream, size, start, reading)
        if header.height < 1 or header.width < 1:
            raise UserError("picture without pixels")
        limits.check(header.height, header.width, header.channels, header.bits // 8)
    if reading is _AS_IT_IS:
        return header
    bits = 32 if reading.active_intensity else header.bits
    return replace(header, bits=bits, decoder=Decoder.DECLARED)


@contextmanager
def _truncation_named() -> Iterator[None]:
    """Says what the errors of reading past the end of a header mean."""
    try:
        yield
    except (struct.error, IndexError, EOFError):
        raise UserError("damaged or truncated header") from None
    except (UnidentifiedImageError, SyntaxError):
        raise UserError("damaged header") from None
    except OSError as error:
        if error.errno:
            raise UserError(error.strerror or str(error)) from None
        raise UserError("truncated") from None  # Pillow's way to say so.


def _picture(stream: BinaryIO, size: int, start: bytes, reading: Reading) -> Header:
    if start.startswith(_TIFF_STARTS):
        check_pages(stream)
        return _tiff(stream, reading)
    if isinstance(reading.page, int) and reading.page > 0:
        raise UserError(f"there is no page {reading.page}: the file holds 1")
    if start.startswith(_JPEG_START):
        return _jpeg(stream, size)
    if start.startswith(_PNG_SIGNATURE):
        return _png(stream, size)
    if start.startswith((b"GIF87a", b"GIF89a")):
        return _gif(stream, size)
    if start.startswith(b"BM"):
        return _bmp(stream, size, start)
    raise UserError(
        "not a JPEG, PNG, BMP, GIF or TIFF image, nor NPY, NPZ, HDF5 or FITS (raw files need"
        " --raw_shape and --raw_dtype)"
    )


def count_pages(path: str, reading: str = "") -> int:
    """Images that a file holds: pages of a TIFF, length of axis N of an array, else 1.

    Raises:
        UserError: As `read_header`.
    """
    declared = parse_reading(reading)
    with damage_refused("damaged header"), open(path, "rb") as stream:
        start = stream.read(64)
        if arrays.holds_array(start, path, declared):
            with arrays.open_array(path, declared) as array:
                return arrays.count_images(array.shape, declared)
        stream.seek(0)
        if not start.startswith(_TIFF_STARTS):
            return 1
        check_pages(stream)
        stream.seek(0)
        return tiff.count_pages(stream)


@lru_cache(maxsize=256)
def _shape_on_disk(
    path: str, stamp: tuple[int, int], reading: Reading, limits: ReadLimits
) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a stored array; asked once for all images of a stack."""
    with arrays.open_array(path, reading, limits) as array:
        return tuple(array.shape), array.dtype


def _array(source: FileSource, reading: Reading, limits: ReadLimits) -> Header:
    if isinstance(source, str):
        status = os.stat(source)
        stamp = status.st_mtime_ns, status.st_size
        shape, kind = _shape_on_disk(source, stamp, replace(reading, page=None), limits)
    else:
        with arrays.open_array(source, reading, limits) as array:
            shape, kind = tuple(array.shape), array.dtype
    height, width, channels = arrays.image_size(shape, reading)
    limits.check(height, width, channels, kind.itemsize)
    arrays.check_range(kind, reading)
    bits = 32
    if kind.kind in "ub" and not reading.active_intensity:
        bits = min(32, 8 * kind.itemsize)
    return Header(height, width, channels, bits, Decoder.DECLARED)


def _tail(stream: BinaryIO, size: int) -> bytes:
    stream.seek(max(0, size - _TAIL))
    return stream.read()


def _jpeg(stream: BinaryIO, size: int) -> Header:
    stream.seek(2)
    while True:
        marker = _next_marker(stream)
        if marker in _BARE_MARKERS:
            continue
        (length,) = struct.unpack(">H", stream.read(2))
        if marker in _SOF:
            bits, height, width, components = struct.unpack(">BHHB", stream.read(6))
            break
        stream.seek(length - 2, os.SEEK_CUR)
    if bits != 8 or components not in (1, 3, 4):
        raise UserError(f"JPEG of {bits} bits and {components} components is not supported")
    if b"\xff\xd9" not in _tail(stream, size):
        # No end marker near the end: truncated, or followed by other data. Decoding tells.
        _decode_whole(stream)
    decoder = Decoder.PYTHON if components == 4 else Decoder.RASTER
    return Header(height, width, 1 if components == 1 else 3, 8, decoder)


def _next_marker(stream: BinaryIO) -> int:
    byte = stream.read(1)
    while byte and byte != b"\xff":
        byte = stream.read(1)
    while byte == b"\xff":
        byte = stream.read(1)
    if not byte or byte in (b"\xd9", b"\xda"):
        raise EOFError
    return byte[0]


def _decode_whole(stream: BinaryIO) -> None:
    stream.seek(0)
    try:
        with Image.open(stream) as image:
            image.load()
    except OSError:
        raise UserError("truncated") from None


def _png(stream: BinaryIO, size: int) -> Header:
    stream.seek(16)
    width, height, bits, colour_type = struct.unpack(">IIBB", stream.read(10))
    channels = 1 if colour_type in (0, 4) else 3
    if colour_type == 3 and _palette_is_grey(_png_palette(stream)):
        channels = 1
    if _PNG_END not in _tail(stream, size) and not _png_has_end(stream, size):
        raise UserError("truncated")
    if bits == 16:
        return Header(height, width, channels, 16, Decoder.PNG16)
    return Header(height, width, channels, 8, Decoder.RASTER)


def _png_palette(stream: BinaryIO) -> bytes:
    stream.seek(33)
    while True:
        length, name = struct.unpack(">I4s", stream.read(8))
        if name == b"PLTE":
            return stream.read(length)
        if name in (b"IDAT", b"IEND"):
            raise UserError("PNG without its palette")
        stream.seek(length + 4, os.SEEK_CUR)


def _png_has_end(stream: BinaryIO, size: int) -> bool:
    """Walks over the chunks, for files with other data after the image."""
    position = 8
    while position + 12 <= size:
        stream.seek(position)
        length, name = struct.unpack(">I4s", stream.read(8))
        position += length + 12
        if name == b"IEND":
            return position <= size
    return False


def _palette_is_grey(palette: bytes) -> bool:
    return palette[0::3] == palette[1::3] == palette[2::3]


def _gif(stream: BinaryIO, size: int) -> Header:
    stream.seek(0)
    with Image.open(stream) as image:
        width, height = image.size
        palette = image.getpalette() if image.mode == "P" else None
        grey = image.mode == "L" or (palette is not None and _palette_is_grey(bytes(palette)))
    if b"\x3b" not in _tail(stream, size).rstrip(b"\x00")[-1:]:
        raise UserError("truncated")
    return Header(height, width, 1 if grey else 3, 8, Decoder.GIF)


def _bmp(stream: BinaryIO, size: int, start: bytes) -> Header:
    offset, header_size = struct.unpack_from("<II", start, 10)
    stream.seek(0)
    with Image.open(stream) as image:
        (width, height), mode = image.size, image.mode
        palette = image.getpalette() if mode == "P" else None
    channels = 1 if mode in _GREY_MODES or (palette and _palette_is_grey(bytes(palette))) else 3
    bits, compression = struct.unpack_from("<HI", start, 28)
    plain = header_size >= 40 and not compression
    if plain and size < offset + (width * bits + 31) // 32 * 4 * height:
        raise UserError("truncated")
    in_graph = plain and (bits == 24 or (bits == 8 and mode == "L"))
    return Header(height, width, channels, 8, Decoder.BMP if in_graph else Decoder.PYTHON)


def _tiff(stream: BinaryIO, reading: Reading) -> Header:
    stream.seek(0)
    layout = tiff.read_layout(stream, reading.page)
    return Header(layout.height, layout.width, layout.channels, layout.bits, Decoder.PYTHON)
