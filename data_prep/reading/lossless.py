"""Decoded images back to files in memory, without loss: PNG for 8 bits, TIFF for all else."""

import io

import numpy as np
import tifffile
from PIL import Image

from data_prep.reading.headers import Decoder


def lossless_decoder(channels: int, bits: int) -> Decoder:
    """How an image comes back that `encode_lossless` has encoded.

    Args:
        channels: Of the image.
        bits: 8 for uint8 pixels, more for float32.
    """
    if bits == 8 and channels in (1, 3):
        return Decoder.RASTER if channels == 1 else Decoder.PNG_COLOUR
    return Decoder.PYTHON


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
