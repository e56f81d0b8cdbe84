"""What a kind is asked for and what it gives back: the files and records of one sample."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from data_prep.manifest.manifest import Record
from data_prep.synthetic.parameters import Parameters

MANIFEST_NAME = "manifest.csv"

PNG, PNG16, NPY = "png", "png16", "npy"
ENDINGS = {PNG: ".png", PNG16: ".png", NPY: ".npy"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What holds for a whole set.

    Attributes:
        seed: from 0.
        height: of the images, in pixels.
        width: of the images, in pixels.
        parameters: settings of the kind.
        file_format: `png` (8 bits), `png16` or `npy` (float32).
    """

    seed: int
    height: int
    width: int
    parameters: Parameters
    file_format: str = PNG


@dataclass(frozen=True)
class Sample:
    """One sample of a set: an image, or several that belong together.

    Attributes:
        files: pixels by path in the set: uint8 [H, W] or [H, W, 3] and uint16 [H, W] become PNG,
            float32 [H, W] becomes NPY; the path's ending says the same.
        records: lines of the set's manifests, by the manifest's name.
        rows: lines of the table of parameters.
        tables: lines of further tables by their name; equal lines are written once.
    """

    files: dict[str, np.ndarray]
    records: dict[str, tuple[Record, ...]]
    rows: tuple[Row, ...]
    tables: dict[str, tuple[Row, ...]]


def single_image(
    class_name: str, index: int, pixels: np.ndarray, drawn: Row, file_format: str = PNG
) -> Sample:
    """The sample that is one image in the folder of its class."""
    path = f"{class_name}/{class_name}_{index:05d}{ENDINGS[file_format]}"
    record = Record(path, class_name)
    return Sample({path: pixels}, {MANIFEST_NAME: (record,)}, ({"path": path, **drawn},), {})


def encode(pixels: np.ndarray) -> bytes:
    """The bytes of an image file: PNG of unsigned integers, NPY of floating point."""
    stream = io.BytesIO()
    if pixels.dtype.kind == "f":
        np.save(stream, pixels)
    else:
        Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def to_levels(image: np.ndarray, file_format: str) -> np.ndarray:
    """Quantises an image in [0, 1]; what lies beyond is clipped.

    Args:
        image: float [H, W] or [H, W, 3].
        file_format: `png` or `png16`.

    Returns:
        uint8 or uint16 of the same shape.
    """
    dtype: Any = np.uint16 if file_format == PNG16 else np.uint8
    return np.rint(np.clip(image, 0, 1) * np.iinfo(dtype).max).astype(dtype)
