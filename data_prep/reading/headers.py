"""Facts of image files from their first and last bytes: size, channels, depth, wholeness.

The content decides the format, not the file's ending (but for RAW files, which are declared). The
modules in `formats` read the headers; JPEG and PNG, which make up nearly every large folder, take
some 20 microseconds a file.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    """Facts of an image from the header of its file.

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
        limits: Largest size of the whole picture; None = any.

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
    """Turns the errors of reading past the end of a header into a `UserError` that names them."""
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


_CHUNK = 128
_THREADS = min(32, 4 * (os.cpu_count() or 1))
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Survey:
    """Facts of n files, arrays [n]; files with a problem have zeros.

    Attributes:
        height: int32, pixels.
        width: int32, pixels.
        channels: int32, 1 grey, 3 colour, or bands.
        bits: int32, as in `Header.bits`: 8, or more for values that become float32.
        decoder: int32, `picture.Decoder`.
        device: int64, with `inode` the identity of the file on disk (links share it).
        inode: int64; 0 where the file system has none.
        problems: Index of an unusable file -> what is wrong with it, in index order.
    """

    height: np.ndarray
    width: np.ndarray
    channels: np.ndarray
    bits: np.ndarray
    decoder: np.ndarray
    device: np.ndarray
    inode: np.ndarray
    problems: dict[int, str]


def survey(files: Sequence[str], readings: Sequence[str] = (), tiles: Sequence[str] = ()) -> Survey:
    """Reads the headers of all files with several threads (waiting for disks overlaps).

    Args:
        files: File names.
        readings: What is declared of each, as in a manifest; none if empty.
        tiles: The part of each that counts, as in a manifest; all if empty.
    """
    if any(readings) or any(tiles):
        declared = list(zip(files, readings or [""] * len(files), tiles or [""] * len(files),
                            strict=True))  # fmt: skip
        return _survey(declared)
    return _survey([(file, "", "") for file in files])


def _survey(files: Sequence[tuple[str, str, str]]) -> Survey:
    facts = np.zeros((7, len(files)), dtype=np.int64)
    problems: dict[int, str] = {}
    starts = range(0, len(files), _CHUNK)
    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = pool.map(lambda start: list(_read(files[start : start + _CHUNK])), starts)
        for start, rows in zip(starts, chunks, strict=True):
            for index, row in enumerate(rows, start):
                if isinstance(row, str):
                    problems[index] = row
                else:
                    facts[:, index] = row
    height, width, channels, bits, decoder = facts[:5].astype(np.int32)
    device, inode = facts[5:]
    return Survey(height, width, channels, bits, decoder, device, inode, problems)


def _read(files: Sequence[tuple[str, str, str]]) -> Iterator[str | tuple[int, ...]]:
    for file, reading, tile in files:
        try:
            header = read_header(file, reading, tile)
            status = os.stat(file)
        except UserError as error:
            yield str(error)
        else:
            yield (
                header.height,
                header.width,
                header.channels,
                header.bits,
                header.decoder,
                # Identities are unsigned 64 bits on some systems.
                status.st_dev & 0x7FFF_FFFF_FFFF_FFFF,
                status.st_ino & 0x7FFF_FFFF_FFFF_FFFF,
            )


def unusable(files: Sequence[str], problems: dict[int, str]) -> UserError:
    """The error that names the first unusable files."""
    shown = "; ".join(
        f"{files[index]} ({problem})" for index, problem in list(problems.items())[:_SHOWN]
    )
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return UserError(
        f"{len(problems)} of {len(files)} images cannot be read: {shown}{more}."
        " Mend or remove them, or leave them out with --skip_unreadable"
    )


def in_short(error: Exception) -> str:
    """Shortens an error's message to one line, without TensorFlow's names of ops and nodes."""
    text = re.sub(r"\{\{.*?\}\}|\[Op:\w*\]", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if "UserError: " in line:
            return line.partition("UserError: ")[2]
    return lines[0] if lines else type(error).__name__


def find_undecodable(files: Sequence[str], decode: Callable[[int], object]) -> UserError | None:
    """Decodes every file to find those that cannot be.

    Args:
        files: File names.
        decode: Decodes the file of an index, and raises if it cannot.

    Returns:
        The error that names the first files at fault, or None.
    """

    def problem(index: int) -> str | None:
        try:
            decode(index)
        except Exception as error:  # Whatever it is, it is the answer.
            return in_short(error).removeprefix(f"{files[index]}: ")
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = enumerate(pool.map(problem, range(len(files))))
        problems = {index: text for index, text in found if text}
    return unusable(files, problems) if problems else None
