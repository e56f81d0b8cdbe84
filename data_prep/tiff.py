"""TIFF files: what they hold and their pixels, with many bands, 16 bits or floating point.

Only the first image of a file counts, as for an animated GIF; the channels of an ImageJ or OME file
(axis C) and an array saved as plain pages by tifffile (axis Q) count as its bands.
"""

import logging
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import tifffile
from PIL import Image

from data_prep.errors import UserError

# Odd tags are common and harmless; files that cannot be read raise.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_BITS = {"uint8": 8, "bool": 8, "uint16": 16, "uint32": 32}
_FLOATS = {"float16", "float32", "float64"}
_ALPHA = {1, 2}


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


def read_layout(stream: BinaryIO) -> TiffLayout:
    """Reads the layout from the header.

    Raises:
        UserError: Not readable, truncated, or of a pixel type that has no natural range.
    """
    try:
        with tifffile.TiffFile(stream) as file:
            page = file.pages.first
            size = stream.seek(0, 2)
            if any(
                offset + count > size
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            ):
                raise UserError("truncated")
            return _layout(file, page)
    except (tifffile.TiffFileError, ValueError, KeyError, IndexError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"damaged TIFF header ({error})") from None


def _layout(file: Any, page: Any) -> TiffLayout:
    kind = str(page.dtype)
    if kind not in _BITS and kind not in _FLOATS:
        raise UserError(
            f"TIFF pixels of type {kind}: save them as uint8, uint16 or float in [0, 1]"
        )
    bits = _BITS.get(kind, 32)
    samples = page.samplesperpixel
    photometric = page.photometric.name
    if photometric == "PALETTE":
        return TiffLayout(page.imagelength, page.imagewidth, 3, 8, False)
    if photometric in ("YCBCR", "CIELAB", "SEPARATED"):
        return TiffLayout(page.imagelength, page.imagewidth, 3, 8, False)
    if samples == 1:
        stacked = _stacked_bands(file)
        return TiffLayout(page.imagelength, page.imagewidth, stacked, bits, stacked > 1)
    extra = [int(value) for value in page.extrasamples]
    channels = samples - sum(value in _ALPHA for value in extra)
    planar = page.planarconfig.name == "SEPARATE"
    return TiffLayout(page.imagelength, page.imagewidth, channels, bits, planar)


def _stacked_bands(file: Any) -> int:
    """Bands kept as pages of their own: the leading axis C or Q of the first series."""
    series = file.series[0]
    if series.axes in ("CYX", "QYX"):
        return int(series.shape[0])
    return 1


def read_pixels(stream: BinaryIO) -> np.ndarray:
    """Pixels of the first image: [H, W, C] of the type in the file, alpha dropped.

    Raises:
        UserError: The pixels cannot be decoded.
    """
    layout = read_layout(stream)
    stream.seek(0)
    try:
        with tifffile.TiffFile(stream) as file:
            page = file.pages.first
            photometric = page.photometric.name
            if photometric in ("YCBCR", "CIELAB", "SEPARATED"):
                return _with_pillow(stream)
            pixels = (
                file.series[0].asarray()
                if page.samplesperpixel == 1 and layout.bands_first
                else page.asarray()
            )
            if photometric == "PALETTE":
                # The colour map has 16 bits a channel: [3, entries].
                return (page.colormap.T[pixels] >> 8).astype(np.uint8)
    except (ValueError, tifffile.TiffFileError, RuntimeError, ImportError) as error:
        if layout.bits == 16 and layout.channels > 1:
            raise UserError(f"TIFF cannot be decoded ({error})") from None
        return _with_pillow(stream)
    if photometric == "MINISWHITE" and pixels.dtype.kind in "ub":
        pixels = ~pixels
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    elif layout.bands_first:
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels[:, :, : layout.channels]


def _with_pillow(stream: BinaryIO) -> np.ndarray:
    """For compressions that tifffile leaves to an optional package, such as LZW and JPEG."""
    stream.seek(0)
    try:
        with Image.open(stream) as image:
            keep = image.mode in ("1", "L", "I;16", "I;16B", "F", "RGB")
            pixels = np.asarray(image if keep else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"TIFF cannot be decoded ({error})") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]
