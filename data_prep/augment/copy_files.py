"""How an image that was changed goes back to a file, in the depth and kind that it came from."""

import io
import os
from dataclasses import replace

import numpy as np
from PIL import Image

from data_prep.reading.formats.arrays import array_suffixes
from data_prep.reading.formats.raw import SUFFIXES as RAW_SUFFIXES
from data_prep.reading.lossless import encode_lossless
from data_prep.reading.spec import STACK, Reading, parse_reading


def encode_like(pixels: np.ndarray, file: str, reading: str = "") -> tuple[str, bytes]:
    """The bytes of a file that is read as these pixels; the same pixels, the same bytes.

    Args:
        pixels: [H, W, C] as `readers.read_stored` gives them.
        file: Name of the file they came from: arrays stay arrays, pictures pictures.
        reading: What is declared of that file; the axes of an array stay as they are.

    Returns:
        The ending, `.png` wherever PNG keeps all, else `.npy` for arrays and `.tif` for pictures;
        and the bytes.
    """
    channels, kind = pixels.shape[-1], pixels.dtype
    is_array = file.lower().endswith((*array_suffixes(), *RAW_SUFFIXES))
    if kind == np.bool_ and not is_array:
        pixels, kind = pixels.astype(np.uint8) * np.uint8(255), np.dtype(np.uint8)
    if (kind == np.uint8 and channels in (1, 3)) or (kind == np.uint16 and channels == 1):
        stream = io.BytesIO()
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(stream, "PNG")
        return ".png", stream.getvalue()
    if not is_array:
        return ".tif", encode_lossless(pixels)
    stream = io.BytesIO()
    axes = _axes(parse_reading(reading))
    values = pixels if "C" in axes else pixels[..., 0]
    order = ["HWC".index(axis) for axis in axes]
    np.save(stream, np.ascontiguousarray(values.transpose(order)))
    return ".npy", stream.getvalue()


def kept_reading(reading: str, path: str) -> str:
    """What of an image's reading still holds for a file that `encode_like` has made of it."""
    declared = parse_reading(reading)
    axes = _axes(declared) if os.path.splitext(path)[1] == ".npy" else ""
    return str(
        replace(
            declared,
            page=None,
            axes="" if axes == "HW" else axes,
            array="",
            shape=(),
            dtype="",
            offset=0,
        )
    )


def _axes(reading: Reading) -> str:
    """The axes of one image of an array, such as HW, HWC or CHW."""
    axes = reading.axes or "HW"
    return axes.replace("N", "C" if reading.page == STACK else "")
