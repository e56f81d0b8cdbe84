"""Image files to arrays outside the TensorFlow graph, and back without loss.

Pixel values are those of the file. Gamma and colour profiles are not applied, neither here nor by
the decoders in the graph. A picture that notes an orientation (EXIF, or the tag of a TIFF) is
turned upright, unless that is declared to be ignored.
"""

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import tifffile
from PIL import Image

from data_prep.errors import UserError, damage_refused
from data_prep.reading.formats import arrays, gif_bmp, jpeg, png, tiff, webp
from data_prep.reading.formats.picture import Stored, turn_upright, value_bits
from data_prep.reading.headers import Decoder, Header, parse_header
from data_prep.reading.intensity import apply_intensity, fill_not_finite
from data_prep.reading.limits import ReadLimits
from data_prep.reading.spec import Reading, parse_reading
from data_prep.reading.tiles import TileBox, check_inside, parse_box

# Luma of ITU-R BT.601, as in JPEG and tf.image.rgb_to_grayscale.
_LUMA = np.array([0.299, 0.587, 0.114])


def read_image(
    source: str | os.PathLike[str] | bytes,
    channels: int | None = None,
    reading: str = "",
    tile: str = "",
    limits: ReadLimits | None = None,
) -> np.ndarray:
    """Reads one image.

    Args:
        source: File name, or the encoded bytes themselves.
        channels: Wanted number of channels; None = as in the file (1 grey, 3 colour, n bands).
            Grey is repeated to 3 and colour reduced to its luma; other changes are refused.
        reading: What is declared of the file, as in a manifest (`spec.Reading`). An intensity
            rule sees the whole picture and all its channels, before tile and luma.
        tile: Part of the picture, `x,y,width,height`; empty = all.
        limits: Largest size of the whole picture, known from its header; None = any.

    Returns:
        [H, W, C]: uint8 in [0, 255] for files of 1, 2, 4 and 8 bits; float32 in [0, 1] for others
        (integers over the range of the bits that the file declares: 4095 for 12 bits, 65535 for
        16; floating point as it is) and after an intensity rule.

    Raises:
        UserError: The file cannot be read, is larger than the limits, holds values that are not
            finite or, without a rule, floating point values outside [0, 1], or has other channels
            than wanted.
    """
    name = "image" if isinstance(source, bytes) else os.fspath(source)
    with _errors_name(name):
        declared, box = parse_reading(reading), parse_box(tile) if tile else None
        path = "" if isinstance(source, bytes) else name
        with io.BytesIO(source) if isinstance(source, bytes) else open(name, "rb") as stream:
            pixels = _read(stream, path, channels, declared, box, limits)
    return pixels if channels is None else with_channels(pixels, channels, name)


def read_stored(path: str, reading: str = "", *, spread: bool = False) -> np.ndarray:
    """The values of an image as the file stores them, before any rule: [H, W, C] of its type.

    Integers that the file calls undefined make it floating point, with NaN for them.

    Args:
        path: The file.
        reading: What is declared of it, as in a manifest.
        spread: Spread integers of fewer bits than their type has (12 of 16) over its full range, so
            that a file of that type shows the same image. With an intensity rule, which counts in
            the units of the file, they stay.

    Raises:
        UserError: The file cannot be read.
    """
    with _errors_name(path), open(path, "rb") as stream:
        declared = parse_reading(reading)
        header = parse_header(stream, declared, path)
        stored = _stored(stream, path, header, None, declared, None)
    if isinstance(stored.pixels, np.ma.MaskedArray):
        return np.asarray(np.ma.filled(stored.pixels.astype(np.float64), np.nan))
    if spread and not declared.active_intensity and stored.pixels.dtype.kind == "u":
        return _spread(stored)
    return stored.pixels


def _spread(stored: Stored) -> np.ndarray:
    """Unsigned integers over the full range of a type that holds them without loss."""
    pixels, depth = stored.pixels, stored.depth
    if depth == 8 * pixels.dtype.itemsize:
        return pixels
    kind = np.dtype(np.uint16) if depth < 8 and value_bits(depth) != 8 else pixels.dtype
    factor = float(np.iinfo(kind).max) / ((1 << depth) - 1)
    return np.rint(pixels * factor).astype(kind)


@contextmanager
def _errors_name(name: str) -> Iterator[None]:
    """Puts the name of the file before what is wrong with it."""
    try:
        with damage_refused("cannot be decoded"):
            try:
                yield
            except OSError as error:
                if error.strerror:
                    raise UserError(error.strerror) from None
                raise
    except UserError as error:
        raise UserError(f"{name}: {error}") from error.__cause__


def with_channels(pixels: np.ndarray, channels: int, name: str = "image") -> np.ndarray:
    """Grey to colour or colour to grey; [H, W, C] of the same type."""
    present = pixels.shape[-1]
    if present == channels:
        return pixels
    if present == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    if present == 3 and channels == 1:
        gray = (pixels @ _LUMA)[:, :, np.newaxis]
        return (np.rint(gray) if pixels.dtype == np.uint8 else gray).astype(pixels.dtype)
    raise UserError(f"{name}: has {present} channels where {channels} are wanted")


def _read(
    stream: BinaryIO,
    path: str,
    channels: int | None,
    reading: Reading,
    box: TileBox | None,
    limits: ReadLimits | None,
) -> np.ndarray:
    """The image in range, cut to the box; no more is decoded where the format allows."""
    header = parse_header(stream, reading, path, limits)
    if box is None:
        return _in_range(_stored(stream, path, header, channels, reading, None, limits), reading)
    check_inside(box, header.height, header.width)
    if _reads_parts(stream, path, header, reading):
        return _in_range(_stored(stream, path, header, channels, reading, box, limits), reading)
    if not path:
        return _part(
            _in_range(_stored(stream, path, header, channels, reading, None, limits), reading), box
        )
    status = os.stat(path)
    with _ONE_WHOLE:  # Others that want a tile of it wait instead of decoding it once more.
        whole = _whole_picture(
            path, (status.st_mtime_ns, status.st_size), header, channels, reading
        )
    if isinstance(whole, Stored):
        return _in_range(Stored(_part(whole.pixels, box), whole.depth), reading)
    return _part(whole, box)


_ONE_WHOLE = threading.Lock()


@lru_cache(maxsize=2)
def _whole_picture(
    path: str, stamp: tuple[int, int], header: Header, channels: int | None, reading: Reading
) -> np.ndarray | Stored:
    """The picture that tiles are cut from, kept for the next tile: as stored if that is enough."""
    with open(path, "rb") as stream:
        stored = _stored(stream, path, header, channels, reading, None)
    return _in_range(stored, reading) if reading.looks_at_whole_picture else stored


def _reads_parts(stream: BinaryIO, path: str, header: Header, reading: Reading) -> bool:
    """Returns True if a tile can be read without decoding the whole picture.

    If not, the decoded picture is worth keeping for the next tile.
    """
    if reading.looks_at_whole_picture:
        return False
    if _is_array(stream, path, reading):
        return True
    return (
        _is_tiff(stream) and not _is_turned(header, reading) and tiff.reads_parts(stream, reading)
    )


def _is_array(stream: BinaryIO, path: str, reading: Reading) -> bool:
    stream.seek(0)
    return arrays.holds_array(stream.read(64), path or stream, reading)


def _is_tiff(stream: BinaryIO) -> bool:
    stream.seek(0)
    return stream.read(4).startswith(tiff.STARTS)


def _is_turned(header: Header, reading: Reading) -> bool:
    return header.orientation != 1 and reading.exif != "ignore"


def _part(pixels: np.ndarray, box: TileBox) -> np.ndarray:
    return pixels[box.y : box.y + box.height, box.x : box.x + box.width].copy()


def _stored(
    stream: BinaryIO,
    path: str,
    header: Header,
    channels: int | None,
    reading: Reading,
    window: TileBox | None,
    limits: ReadLimits | None = None,
) -> Stored:
    """Stored values, upright; of arrays and TIFF only the window, of other pictures all."""
    if _is_array(stream, path, reading):
        return _of_its_type(
            arrays.read_array(path or stream, reading, window, limits or arrays.NO_LIMITS)
        )
    if _is_tiff(stream):
        stored = tiff.read_pixels(stream, reading, window)
    else:
        luma = channels == 1 and not reading.active_intensity
        stored = _read_picture(stream, header, luma)
        _check_shape(stored.pixels, header, reading, luma)
    if _is_turned(header, reading):
        return Stored(turn_upright(stored.pixels, header.orientation), stored.depth)
    return stored


def _read_picture(stream: BinaryIO, header: Header, luma: bool) -> Stored:
    stream.seek(0)
    start = stream.read(16)
    if start.startswith(jpeg.START):
        stored = _of_its_type(jpeg.read_pixels(stream, luma))
        # Of a JPEG of 12 bits the type has 16.
        return stored if stored.depth == 8 else Stored(stored.pixels, min(header.bits, 16))
    if start.startswith(png.START):
        return _of_its_type(png.read_pixels(stream, header.channels))
    if webp.starts_webp(start):
        return _of_its_type(webp.read_pixels(stream))
    return _of_its_type(gif_bmp.read_pixels(stream, header.channels))


def _check_shape(pixels: np.ndarray, header: Header, reading: Reading, luma: bool) -> None:
    """Refuses a picture that a decoder takes for something else than its header says."""
    size = (header.height, header.width)
    if _is_turned(header, reading) and header.orientation >= 5:
        size = size[::-1]
    if pixels.shape[:2] != size or pixels.shape[2] not in (header.channels, 1 if luma else 0):
        shown = " x ".join(map(str, pixels.shape))
        raise UserError(f"damaged (pixels of shape {shown} are not what its header says)")


def _of_its_type(pixels: np.ndarray) -> Stored:
    """Values that use all bits of their type."""
    return Stored(pixels, 8 * pixels.dtype.itemsize)


def _in_range(stored: Stored, reading: Reading) -> np.ndarray:
    """Stored values to uint8, or float32 in [0, 1]."""
    pixels = fill_not_finite(stored.pixels, reading.nan)
    rule = reading.active_intensity
    if rule:
        return apply_intensity(pixels, rule)
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind == "u":
        most = (1 << stored.depth) - 1
        if value_bits(stored.depth) == 8:
            return pixels if most == 255 else pixels.astype(np.uint8) * np.uint8(255 // most)
        return (pixels / np.float64(most)).astype(np.float32)
    with np.errstate(over="ignore"):
        values = pixels.astype(np.float32)
    if values.size and (values.min() < 0 or values.max() > 1):
        raise UserError(
            f"holds floating point values from {values.min():.4g} to {values.max():.4g}; scale"
            " them to [0, 1], all images by the same rule, such as --intensity=percentile:1,99.7"
        )
    return values


def lossless_decoder(channels: int, bits: int) -> Decoder:
    """Returns the decoder for an image that `encode_lossless` has encoded.

    Args:
        channels: Of the image.
        bits: 8 for uint8 pixels, more for float32.
    """
    if bits == 8 and channels in (1, 3):
        return Decoder.RASTER if channels == 1 else Decoder.PNG_COLOR
    return Decoder.PYTHON


def encode_lossless(pixels: np.ndarray) -> bytes:
    """The bytes of a PNG or TIFF that decodes to these pixels; the same pixels, the same bytes.

    Args:
        pixels: [H, W, C], uint8 or float32 in [0, 1], as `read_image` gives them.
    """
    buffer = io.BytesIO()
    channels = pixels.shape[-1]
    if pixels.dtype == np.uint8 and channels in (1, 3):
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, "PNG")
    else:
        # Channels that are no colours become planes with a name: samples beside one another would
        # be grey and something that a TIFF cannot name.
        planes = {1: pixels[..., 0], 3: pixels}.get(channels, np.moveaxis(pixels, -1, 0))
        tifffile.imwrite(
            buffer,
            planes,
            photometric="rgb" if channels == 3 else "minisblack",
            planarconfig="contig" if channels == 3 else None,
            metadata={"axes": "CYX"} if channels not in (1, 3) else None,
        )
    return buffer.getvalue()
