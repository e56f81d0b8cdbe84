"""Facts of an image file from its first and last bytes: size, channels, depth, and if it is whole.

The content decides the format, not the file's ending (but for RAW files, which are declared). The
modules in `formats` read the headers; JPEG and PNG, which make up nearly every large folder, take
some 20 microseconds a file.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import BinaryIO

import numpy as np
from PIL import UnidentifiedImageError

from data_prep.errors import UserError, damage_refused
from data_prep.reading.formats import arrays, gif_bmp, jpeg, png, tiff, webp
from data_prep.reading.formats.picture import TURNED, Decoder, Picture
from data_prep.reading.formats.source import FileSource
from data_prep.reading.limits import ReadLimits
from data_prep.reading.spec import Reading, parse_reading
from data_prep.reading.tiles import check_inside, parse_box

__all__ = ["Decoder", "Header", "count_pages", "parse_header", "read_header"]

_PLAIN_STARTS = (jpeg.START, png.START)
_AS_IT_IS = Reading()
_NOT_TURNED = Reading(exif="ignore")
_TURNED = {orientation: decoder for decoder, orientation in TURNED.items()}


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of an image file says.

    Attributes:
        height: Pixels, of the image upright (or as stored, if EXIF is declared to be ignored).
        width: Pixels, likewise.
        channels: 1 grey, 3 colour (palettes expanded, alpha dropped), n bands of a TIFF.
        bits: Of a value: 8 if the image is read as uint8, more if as float32. The depth that the
            file declares (12, 16, ...); of less than 8 bits 8, or 16 if the greatest value does
            not divide 255; 32 after an intensity rule.
        decoder: How to decode the file.
        orientation: As the file notes it, 1 to 8; 1 = upright.
    """

    height: int
    width: int
    channels: int
    bits: int
    decoder: Decoder
    orientation: int = 1


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
            cropped = header.decoder == Decoder.RASTER and stream.read(2) == jpeg.START
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
    """Like `read_header`, from an open file or from bytes in memory.

    Args:
        stream: The file.
        reading: What is declared of it.
        path: Its name, if it has one.
        limits: Refuse a larger picture before anything of it is decoded; None = any size is read.

    Raises:
        UserError: As `read_header`.
    """
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
        picture = _picture(stream, size, start, reading)
        if picture.height < 1 or picture.width < 1:
            raise UserError("picture without pixels")
        header = _upright(picture, reading)
        limits.check(header.height, header.width, header.channels, (picture.bits + 7) // 8)
        if start.startswith(jpeg.START):
            jpeg.check_whole(stream, size)
    return header


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


def _upright(picture: Picture, reading: Reading) -> Header:
    """The header of a picture, turned and read as declared."""
    height, width, decoder = picture.height, picture.width, picture.decoder
    turned = picture.orientation != 1 and reading.exif != "ignore"
    if turned:
        if picture.orientation >= 5:
            height, width = width, height
        in_graph = decoder == Decoder.RASTER
        decoder = _TURNED[picture.orientation] if in_graph else Decoder.PYTHON
    bits = picture.bits
    if reading is not _AS_IT_IS and reading not in (_AS_IT_IS, _NOT_TURNED):
        decoder = Decoder.DECLARED
        bits = 32 if reading.active_intensity else bits
    return Header(height, width, picture.channels, bits, decoder, picture.orientation)


def _picture(stream: BinaryIO, size: int, start: bytes, reading: Reading) -> Picture:
    if start.startswith(tiff.STARTS):
        stream.seek(0)
        return tiff.read_facts(stream, reading)
    if isinstance(reading.page, int) and reading.page > 0:
        raise UserError(f"there is no page {reading.page}: the file holds 1")
    if start.startswith(jpeg.START):
        return jpeg.read_facts(stream, size)
    if start.startswith(png.START):
        return png.read_facts(stream, size)
    if start.startswith(gif_bmp.GIF_STARTS):
        return gif_bmp.read_gif_facts(stream, size)
    if start.startswith(gif_bmp.BMP_START):
        return gif_bmp.read_bmp_facts(stream, size, start)
    if webp.starts_webp(start):
        return webp.read_facts(stream, size)
    raise UserError(
        "not a JPEG, PNG, BMP, GIF, TIFF or WebP image, nor NPY, NPZ, HDF5 or FITS (raw files need"
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
        return tiff.count_pages(stream, declared) if start.startswith(tiff.STARTS) else 1


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
