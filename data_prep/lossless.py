"""Decoded images back to files in memory, without loss: PNG for 8 bits, TIFF for all else."""

import io

import numpy as np
import tifffile
from PIL import Image

from data_prep.headers import Decoder


def lossless_decoder(channels: int, bits: int) -> Decoder:
    """How an image comes back that `encode_lossless` has encoded.

    Args:
        channels: Of the image.
        bits: 8 for uint8 pixels, more for float32.
    """
    return Decoder.RASTER if bits == 8 and channels in (1, 3) else Decoder.PYTHON


def encode_lossless(pixels: np.ndarray) -> bytes:
    """The bytes of a PNG or TIFF that decodes to these pixels; the same pixels, the same bytes.

    Args:
        pixels: [H, W, C], uint8 or float32 in [0, 1], as `readers.read_image` gives them.
    """
    buffer = io.BytesIO()
    channels = pixels.shape[-1]
    if pixels.dtype == np.uint8 and channels in (1, 3):
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, "PNG")
    else:
        tifffile.imwrite(
            buffer,
            pixels[..., 0] if channels == 1 else pixels,
            photometric="minisblack",
            planarconfig="contig" if channels > 1 else None,
            metadata=None,
        )
    return buffer.getvalue()
