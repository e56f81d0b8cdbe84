"""Small pictures of images of any kind, for pages."""

import io
import os

import numpy as np
from PIL import Image

from data_prep.reading.images import read_image

_SIDE = 240
_STRETCH = (0.5, 99.5)  # percentiles shown black and white, of images that have not 8 bits


def thumbnail(
    file: str | os.PathLike[str] | bytes, tile: str = "", reading: str = "", side: int = _SIDE
) -> bytes:
    """A JPEG of an image, or of a tile of it.

    8-bit images are shown as they are, others stretched from their 0.5th to their 99.5th
    percentile; of two channels the first is shown, of more than three the first three.

    Args:
        file: The image, or its encoded bytes.
        tile: `x,y,width,height` in pixels; "" = all of it.
        reading: How the file is read, as in a manifest.
        side: Pixels of the longer side; smaller images are not enlarged.

    Raises:
        UserError: The file cannot be read.
    """
    return small_jpeg(read_image(file, reading=reading, tile=tile), side)


def small_jpeg(pixels: np.ndarray, side: int = _SIDE) -> bytes:
    """A JPEG, as of `thumbnail`, of pixels [H, W, C], uint8 or float32."""
    image = Image.fromarray(_eight_bits(_gray_or_color(pixels)))
    image.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def blank(side: int = _SIDE) -> bytes:
    """A grey JPEG in the place of an image that cannot be shown."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 225).save(buffer, "JPEG")
    return buffer.getvalue()


def _gray_or_color(pixels: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, 3] of pixels [H, W, C]."""
    return pixels[..., 0] if pixels.shape[-1] < 3 else pixels[..., :3]


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    low, high = np.percentile(pixels, _STRETCH)
    scaled = (pixels.astype(np.float64) - low) / (float(high - low) or 1.0)
    return (255 * np.clip(scaled, 0, 1) + 0.5).astype(np.uint8)
