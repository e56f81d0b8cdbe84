"""Image files to arrays outside the TensorFlow graph: the slow, general and exact way.

Pixel values are those of the file. Orientation tags (EXIF), gamma and colour profiles are not
applied, neither here nor by the decoders in the graph.
"""

import io
import os
from typing import BinaryIO

import numpy as np
from PIL import Image

from data_prep import tiff
from data_prep.errors import UserError
from data_prep.headers import Header, parse_header

# Luma of ITU-R BT.601, as in JPEG and tf.image.rgb_to_grayscale.
_LUMA = np.array([0.299, 0.587, 0.114])


def read_image(source: str | os.PathLike[str] | bytes, channels: int | None = None) -> np.ndarray:
    """Reads one image.

    Args:
        source: File name, or the encoded bytes themselves.
        channels: Wanted number of channels; None = as in the file (1 grey, 3 colour, n bands).
            Grey is repeated to 3 and colour reduced to its luma; other changes are refused.

    Returns:
        [H, W, C]: uint8 in [0, 255] for 8-bit files; float32 in [0, 1] for others (16-bit values
        over 65535, 32-bit over 2^32 - 1, floating point as it is).

    Raises:
        UserError: The file cannot be read, holds floating point values that are not finite or lie
            outside [0, 1], or has other channels than wanted.
    """
    name = "image" if isinstance(source, bytes) else os.fspath(source)
    try:
        if isinstance(source, bytes):
            pixels = _read(io.BytesIO(source), channels)
        else:
            with open(source, "rb") as stream:
                pixels = _read(stream, channels)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or error}") from None
    return pixels if channels is None else with_channels(pixels, channels, name)


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


def _read(stream: BinaryIO, channels: int | None) -> np.ndarray:
    header = parse_header(stream)
    stream.seek(0)
    start = stream.read(4)
    stream.seek(0)
    if start.startswith((b"II", b"MM")):
        return _in_range(tiff.read_pixels(stream))
    return _read_with_pillow(stream, header, channels)


def _read_with_pillow(stream: BinaryIO, header: Header, channels: int | None) -> np.ndarray:
    if header.bits == 16 and header.channels == 3:
        raise UserError("16-bit colour PNG can be decoded by TensorFlow only")
    try:
        with Image.open(stream) as image:
            if header.bits == 16:
                # Pillow would drop the low byte.
                if image.mode == "LA":
                    raise UserError("16-bit PNG with alpha can be decoded by TensorFlow only")
                return _in_range(np.asarray(image).astype(np.uint16)[:, :, np.newaxis])
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


def _in_range(pixels: np.ndarray) -> np.ndarray:
    """Stored values to uint8, or float32 in [0, 1]."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind == "u":
        return (pixels / np.float64(np.iinfo(pixels.dtype).max)).astype(np.float32)
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError("holds values that are not finite (NaN or infinity); replace them first")
    if values.size and (values.min() < 0 or values.max() > 1):
        raise UserError(
            f"holds floating point values from {values.min():.4g} to {values.max():.4g}; scale"
            " them to [0, 1] first, all images by the same rule"
        )
    return values
