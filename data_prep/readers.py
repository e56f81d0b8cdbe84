"""Image files to arrays outside the TensorFlow graph: the slow, general and exact way.

Pixel values are those of the file. Orientation tags (EXIF), gamma and colour profiles are not
applied, neither here nor by the decoders in the graph.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import BinaryIO

import numpy as np
from PIL import Image

from data_prep import tiff
from data_prep.errors import UserError
from data_prep.formats import arrays
from data_prep.formats.png16 import read_png16
from data_prep.headers import Header, parse_header
from data_prep.intensity import apply_intensity, fill_not_finite
from data_prep.reading import Reading, parse_reading
from data_prep.tiles import Box, check_inside, parse_box

# Luma of ITU-R BT.601, as in JPEG and tf.image.rgb_to_grayscale.
_LUMA = np.array([0.299, 0.587, 0.114])


def read_image(
    source: str | os.PathLike[str] | bytes,
    channels: int | None = None,
    reading: str = "",
    tile: str = "",
) -> np.ndarray:
    """Reads one image.

    Args:
        source: File name, or the encoded bytes themselves.
        channels: Wanted number of channels; None = as in the file (1 grey, 3 colour, n bands).
            Grey is repeated to 3 and colour reduced to its luma; other changes are refused.
        reading: What is declared of the file, as in a manifest (`reading.Reading`). An intensity
            rule sees the whole picture and all its channels, before tile and luma.
        tile: Part of the picture, `x,y,width,height`; empty = all.

    Returns:
        [H, W, C]: uint8 in [0, 255] for 8-bit files; float32 in [0, 1] for others (16-bit values
        over 65535, 32-bit over 2^32 - 1, floating point as it is) and after an intensity rule.

    Raises:
        UserError: The file cannot be read, holds values that are not finite or, without a rule,
            floating point values outside [0, 1], or has other channels than wanted.
    """
    name = "image" if isinstance(source, bytes) else os.fspath(source)
    with _errors_name(name):
        declared, box = parse_reading(reading), parse_box(tile) if tile else None
        if isinstance(source, bytes):
            pixels = _read(io.BytesIO(source), "", channels, declared, box)
        elif box and _needs_whole(name, declared):
            status = os.stat(name)
            stamp = status.st_mtime_ns, status.st_size
            pixels = _part(_whole_picture(name, stamp, channels, declared), box)
        else:
            with open(name, "rb") as stream:
                pixels = _read(stream, name, channels, declared, box)
    return pixels if channels is None else with_channels(pixels, channels, name)


def read_stored(path: str, reading: str = "") -> np.ndarray:
    """The values of an image as the file stores them, before any rule: [H, W, C] of its type.

    Raises:
        UserError: The file cannot be read.
    """
    with _errors_name(path), open(path, "rb") as stream:
        return _stored(stream, path, None, parse_reading(reading), None)


@contextmanager
def _errors_name(name: str) -> Iterator[None]:
    """Puts the name of the file before what is wrong with it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or error}") from None


def with_channels(pixels: np.ndarray, channels: int, name: str = "image") -> np.ndarray:
    """Grey to colour or colour to grey; [H, W, C] of the same type."""
    present = pixels.shape[-1]
    if present == channels:
        return pixels
    if present == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    if present == 3 and channels == 1:
        grey = (pixels @ _LUMA)[:, :, np.newaxis]
        return (np.rint(grey) if pixels.dtype == np.uint8 else grey).astype(pixels.dtype)
    raise UserError(f"{name}: has {present} channels where {channels} are wanted")


@lru_cache(maxsize=2)
def _whole_picture(
    path: str, stamp: tuple[int, int], channels: int | None, reading: Reading
) -> np.ndarray:
    """The picture that tiles are cut from, kept for the next tile."""
    with open(path, "rb") as stream:
        return _read(stream, path, channels, reading, None)


def _needs_whole(path: str, reading: Reading) -> bool:
    """Whether a tile can only be had from the whole picture, which is then worth keeping."""
    with open(path, "rb") as stream:
        return reading.looks_at_whole_picture or not _is_array(stream, path, reading)


def _is_array(stream: BinaryIO, path: str, reading: Reading) -> bool:
    stream.seek(0)
    return arrays.holds_array(stream.read(64), path or stream, reading)


def _read(
    stream: BinaryIO, path: str, channels: int | None, reading: Reading, box: Box | None
) -> np.ndarray:
    """The image in range, cut to the box; of an array no more is read, if that is enough."""
    window = None
    if box and not reading.looks_at_whole_picture and _is_array(stream, path, reading):
        window = box
    pixels = _in_range(_stored(stream, path, channels, reading, window), reading)
    return _part(pixels, box) if box and not window else pixels


def _part(pixels: np.ndarray, box: Box) -> np.ndarray:
    check_inside(box, *pixels.shape[:2])
    return pixels[box.y : box.y + box.height, box.x : box.x + box.width].copy()


def _stored(
    stream: BinaryIO, path: str, channels: int | None, reading: Reading, window: Box | None
) -> np.ndarray:
    """Stored values; of an array only the window, of a picture all."""
    header = parse_header(stream, reading, path)
    if _is_array(stream, path, reading):
        return arrays.read_array(path or stream, reading, window)
    stream.seek(0)
    start = stream.read(4)
    stream.seek(0)
    if start.startswith((b"II", b"MM")):
        return tiff.read_pixels(stream, reading.page)
    return _read_with_pillow(stream, header, None if reading.active_intensity else channels)


def _read_with_pillow(stream: BinaryIO, header: Header, channels: int | None) -> np.ndarray:
    try:
        with Image.open(stream) as image:
            if image.format == "PNG" and _png_bits(stream) == 16:
                if image.mode.startswith("I"):
                    return np.asarray(image).astype(np.uint16)[:, :, np.newaxis]
                stream.seek(0)
                return read_png16(stream.read())[:, :, : header.channels]
            if image.format == "JPEG" and image.mode == "RGB" and channels == 1:
                # The luma that is stored, as TensorFlow's decoder gives it.
                image.draft("L", image.size)
            grey = header.channels == 1 or image.mode == "L"
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot be decoded ({error})") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def _png_bits(stream: BinaryIO) -> int:
    """Bits a sample, byte 24 of a PNG."""
    place = stream.tell()
    stream.seek(24)
    bits = stream.read(1)[0]
    stream.seek(place)
    return bits


def _in_range(pixels: np.ndarray, reading: Reading) -> np.ndarray:
    """Stored values to uint8, or float32 in [0, 1]."""
    pixels = fill_not_finite(pixels, reading.nan)
    rule = reading.active_intensity
    if rule:
        return apply_intensity(pixels, rule)
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind == "u":
        return (pixels / np.float64(np.iinfo(pixels.dtype).max)).astype(np.float32)
    values = pixels.astype(np.float32)
    if values.size and (values.min() < 0 or values.max() > 1):
        raise UserError(
            f"holds floating point values from {values.min():.4g} to {values.max():.4g}; scale"
            " them to [0, 1], all images by the same rule, such as --intensity=percentile:1,99.7"
        )
    return values
