"""Request, settings, random numbers and result of one synthetic sample.

The settings of a kind are a subclass of `Parameters`, a section like those of other commands:

    @dataclass(frozen=True)
    class RingParameters(Parameters):
        TITLE = "--kind=rings"
        radius: Range = setting((0.2, 0.4), "Radius over the side.", topic="Rings", low=0, high=1)
        colour: Literal["grey", "rgb"] = setting("grey", "Colours.")

Every image has a generator of its own, seeded by (seed, class, index): it does not depend on how
many others are made, nor in which order or on how many threads.
"""

import io
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Record
from data_prep.settings import Setting, section_settings

Range = tuple[float, float]


@dataclass(frozen=True)
class Parameters:
    """Base of the settings of a kind.

    A setting that is a `Range` is drawn uniformly for each image; one that is a number or a word
    holds for all of them. A single number stands for a range that begins and ends there.
    """

    def __post_init__(self) -> None:
        for s in self.meanings().values():
            value = getattr(self, s.name)
            if s.kind is tuple and isinstance(value, tuple) and len(value) == 1:
                object.__setattr__(self, s.name, value * 2)

    @classmethod
    def meanings(cls) -> dict[str, Setting]:
        """Every setting, in order."""
        return {s.name: s for s in section_settings("parameters", cls)}

    def validate(self) -> None:
        """Raises UserError if a value is outside its limits or a range is reversed."""
        for s in self.meanings().values():
            value = getattr(self, s.name)
            wrong = s.problem(value)
            if s.kind is tuple and not wrong:
                wrong = "" if len(value) == 2 and value[0] <= value[1] else "reversed"
            if wrong and s.kind is tuple:
                wrong = f"must be two numbers, the smaller first, {_limits(s)}"
            elif wrong and not s.choices:
                wrong = f"must be a number {_limits(s)}"
            if wrong:
                raise UserError(wrong, setting=s.name, value=value)


def _limits(s: Setting) -> str:
    upper = "upwards" if s.high is None else f"to {s.high:g}"
    return f"from {s.low or 0:g} {upper}"


MANIFEST_NAME = "manifest.csv"

PNG, PNG16, NPY = "png", "png16", "npy"
ENDINGS = {PNG: ".png", PNG16: ".png", NPY: ".npy"}

SampleRow = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """Seed, size, settings and format, the same for a whole set.

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
    rows: tuple[SampleRow, ...]
    tables: dict[str, tuple[SampleRow, ...]]


def single_image(
    class_name: str, index: int, pixels: np.ndarray, drawn: SampleRow, file_format: str = PNG
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


def image_generator(seed: int, class_name: str, index: int) -> np.random.Generator:
    """The random generator that belongs to one image of a set."""
    entropy = [seed, zlib.crc32(class_name.encode()), index]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def between(rng: np.random.Generator, bounds: Range) -> float:
    """A number drawn uniformly from a range."""
    return float(rng.uniform(*bounds))


def whole_between(rng: np.random.Generator, bounds: Range) -> int:
    """A whole number drawn uniformly from a range, both ends included."""
    return int(rng.integers(round(bounds[0]), round(bounds[1]) + 1))
