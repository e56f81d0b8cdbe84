"""TIFF files: what they hold and their pixels, with many bands, 16 bits or floating point.

Unless a page is asked for, only the first image of a file counts, as for an animated GIF; the
channels of an ImageJ or OME file (axis C) and an array saved as plain pages by tifffile (axis Q)
count as its bands.
"""

import logging
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import tifffile
from PIL import Image

from data_prep.errors import UserError
from data_prep.reading import STACK

# Odd tags are common and harmless; files that cannot be read raise.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_BITS = {"uint8": 8, "bool": 8, "uint16": 16, "uint32": 32}
_FLOATS = {"float16", "float32", "float64"}
_ALPHA = {1, 2}

Page = int | str | None
"""Which page: its number, "stack" for all of them as channels, None for the first image."""


@dataclass(frozen=True)
class TiffLayout:
    """What the first image of a TIFF file holds.

    Attributes:
        height: Pixels.
        width: Pixels.
        channels: Bands that count: palettes give 3, alpha is dropped.
        bits: 8, 16 or 32.
        bands_first: Axis order of the pixel data is [bands, height, width].
    """

    height: int
    width: int
    channels: int
    bits: int
    bands_first: bool


def read_layout(stream: BinaryIO, page: Page = None) -> TiffLayout:
    """Reads the layout from the header.

    Raises:
        UserError: Not readable, truncated, no such page, or of a pixel type that has no range.
    """
    try:
        with tifffile.TiffFile(stream, _multifile=False) as file:
            pages = _pages(file, page)
            size = stream.seek(0, 2)
            if any(
                offset + count > size
                for part in pages
                for offset, count in zip(part.dataoffsets, part.databytecounts, strict=True)
            ):
                raise UserError("truncated")
            return _layout(file, pages, page)
    except (tifffile.TiffFileError, ValueError, KeyError, IndexError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"damaged TIFF header ({error})") from None


def count_pages(stream: BinaryIO) -> int:
    """Number of pages of a file whose header could be read."""
    with tifffile.TiffFile(stream, _multifile=False) as file:
        return len(file.pages)


def _pages(file: Any, page: Page) -> list[Any]:
    if page is None:
        return [file.pages.first]
    if page == STACK:
        return list(file.pages)
    number = len(file.pages)
    if not isinstance(page, int) or page >= number:
        raise UserError(f"there is no page {page}: the file holds {number}")
    return [file.pages[page]]


def _layout(file: Any, pages: list[Any], page: Page) -> TiffLayout:
    first = pages[0]
    kind = str(first.dtype)
    if kind not in _BITS and kind not in _FLOATS:
        raise UserError(
            f"TIFF pixels of type {kind}: save them as uint8, uint16 or float in [0, 1]"
        )
    bits = _BITS.get(kind, 32)
    height, width, samples = first.imagelength, first.imagewidth, first.samplesperpixel
    photometric = first.photometric.name
    if page == STACK and len(pages) > 1:
        if samples > 1 or any((p.shape, p.dtype) != (first.shape, first.dtype) for p in pages):
            raise UserError("pages of several channels, sizes or types cannot be stacked")
        return TiffLayout(height, width, len(pages), bits, True)
    if photometric in ("PALETTE", "YCBCR", "CIELAB", "SEPARATED"):
        return TiffLayout(height, width, 3, 8, False)
    if samples == 1:
        stacked = _stacked_bands(file) if page is None else 1
        return TiffLayout(height, width, stacked, bits, stacked > 1)
    extra = [int(value) for value in first.extrasamples]
    channels = samples - sum(value in _ALPHA for value in extra)
    return TiffLayout(height, width, channels, bits, first.planarconfig.name == "SEPARATE")


def _stacked_bands(file: Any) -> int:
    """Bands kept as pages of their own: the leading axis C or Q of the first series."""
    series = file.series[0]
    if series.axes in ("CYX", "QYX"):
        return int(series.shape[0])
    return 1


def read_pixels(stream: BinaryIO, page: Page = None) -> np.ndarray:
    """Pixels of one image: [H, W, C] of the type in the file, alpha dropped.

    Raises:
        UserError: The pixels cannot be decoded.
    """
    layout = read_layout(stream, page)
    stream.seek(0)
    numbers = [page if isinstance(page, int) else 0]
    try:
        with tifffile.TiffFile(stream, _multifile=False) as file:
            pages = _pages(file, page)
            first = pages[0]
            if len(pages) > 1:
                numbers = list(range(len(pages)))
            photometric = first.photometric.name
            if photometric in ("YCBCR", "CIELAB", "SEPARATED"):
                return _with_pillow(stream, numbers)
            if len(pages) > 1:
                pixels = np.stack([part.asarray() for part in pages])
            elif page is None and first.samplesperpixel == 1 and layout.bands_first:
                pixels = file.series[0].asarray()
            else:
                pixels = first.asarray()
            if photometric == "PALETTE" and len(pages) == 1:
                # The colour map has 16 bits a channel: [3, entries].
                return (first.colormap.T[pixels] >> 8).astype(np.uint8)
    except (ValueError, tifffile.TiffFileError, RuntimeError, ImportError) as error:
        if layout.bits == 16 and layout.channels > 1 and len(numbers) == 1:
            raise UserError(f"TIFF cannot be decoded ({error})") from None
        return _with_pillow(stream, numbers)
    if photometric == "MINISWHITE" and pixels.dtype.kind in "ub":
        pixels = ~pixels
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    elif layout.bands_first:
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels[:, :, : layout.channels]


def _with_pillow(stream: BinaryIO, pages: list[int]) -> np.ndarray:
    """For compressions that tifffile leaves to an optional package, such as LZW and JPEG."""
    stream.seek(0)
    found = []
    try:
        with Image.open(stream) as image:
            for page in pages:
                image.seek(page)
                keep = image.mode in ("1", "L", "I;16", "I;16B", "F", "RGB")
                found.append(np.asarray(image if keep else image.convert("RGB")))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"TIFF cannot be decoded ({error})") from None
    found = [one if one.ndim == 3 else one[:, :, np.newaxis] for one in found]
    return np.concatenate(found, axis=-1)
