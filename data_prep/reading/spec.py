"""The reading of a file: all that it does not say about how it becomes an image, in one line.

    page=0;axes=CHW;array=/image;shape=512,512;dtype=uint16;nan=min;intensity=percentile(1,99.7)

This is the column `reading` of a manifest. Empty means: as the file says.
"""

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.reading.intensity import NAN_RULES, Intensity, parse_intensity

STACK = "stack"
FOLLOW = "follow"
OF_BEFORE = {"exif": "ignore", "percentiles": "sampled"}
"""Values by which version 0.1.0 read files, unrecorded, where today's defaults differ."""
_MOST_CHANNELS_HINT = "N (images of a stack), H (height), W (width), C (channels)"


@dataclass(frozen=True, slots=True)
class Reading:
    """Declarations about a file; defaults mean "as the file says".

    Attributes:
        page: Page of a TIFF, or position on axis N of an array; "stack" = all pages as channels.
        axes: The axes of a stored array, in order: each of H and W once, N and C at most once.
            Needed for more than two axes. Pictures (PNG, TIFF, ...) know their own; of a TIFF stack
            NCHW makes images with all its channels, instead of one a plane.
        array: Name of the array: HDF5 data set, member of an NPZ, extension of a FITS (name or
            number).
        shape: RAW: the shape, in the order of `axes`.
        dtype: RAW: NumPy's name of the type, `<` or `>` before it for the byte order.
        offset: RAW: bytes before the first pixel.
        nan: What NaN and infinities become: "min" or "median" of the image, "zero"; "" = refused.
        links: HDF5 data sets whose values lie in other files: "" = refused, "follow" = read.
        exif: The orientation that EXIF notes: "" = applied, "ignore" = pixels as stored.
        extra: Samples of a TIFF whose meaning it does not say: "drop", or "band" = channels; "" =
            refused.
        intensity: The intensity rule; None = none stated.
        percentiles: Where its percentiles come from: "" = all values; "sampled" = some of them, as
            in version 0.1.0.
    """

    page: int | str | None = None
    axes: str = ""
    array: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    offset: int = 0
    nan: str = ""
    links: str = ""
    exif: str = ""
    extra: str = ""
    intensity: Intensity | None = None
    percentiles: str = ""

    def __str__(self) -> str:
        """The one-line form; empty for a reading that declares nothing."""
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                text = ",".join(map(str, value)) if field.name == "shape" else str(value)
                parts.append(f"{field.name}={text}")
        return ";".join(parts)

    @property
    def active_intensity(self) -> Intensity | None:
        """The rule if it changes values."""
        if not self.intensity or not self.intensity.active:
            return None
        if self.percentiles and self.intensity.seeks_percentiles:
            return replace(self.intensity, sampled=True)
        return self.intensity

    @property
    def looks_at_whole_picture(self) -> bool:
        """True if the values of a tile depend on the rest of its picture."""
        rule = self.active_intensity
        return self.nan in ("min", "median") or bool(rule and rule.limits == "image")


@lru_cache(maxsize=4096)
def parse_reading(text: str) -> Reading:
    """Reads the one-line form.

    Raises:
        UserError: An unknown name or an impossible value.
    """
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = part.partition("=")
        if name not in _PARSERS or not equals or name in values:
            raise UserError(
                f"reading {text!r}: {part!r} must be one of {', '.join(_PARSERS)}, once, with ="
            )
        values[name] = _PARSERS[name](value.strip())
    reading = Reading(**values)
    if bool(reading.shape) != bool(reading.dtype):
        raise UserError(f"reading {text!r}: raw files need both shape and dtype")
    return reading


def merge(own: Reading, declared: Reading) -> Reading:
    """Completes the reading of one record by what is declared of all files.

    A rule whose limits are still to be found takes them from the declared one if it is the same.
    `percentiles` is left out if there are none to find.

    Raises:
        UserError: Both say something, and not the same.
    """
    changes: dict[str, Any] = {}
    for field in fields(Reading):
        mine, theirs = getattr(own, field.name), getattr(declared, field.name)
        if theirs in (field.default, mine):
            continue
        if field.name == "intensity" and mine and mine.limits == "set" and mine.same_rule(theirs):
            mine = None
        if field.name == "intensity" and not theirs.active and mine is None:
            continue
        if mine != field.default:
            raise UserError(
                f"the manifest says {field.name}={mine}, the command or its checkpoint"
                f" {field.name}={theirs}; let them agree"
            )
        changes[field.name] = theirs
    merged = replace(own, **changes)
    sought = merged.intensity is not None and merged.intensity.seeks_percentiles
    return merged if sought or not merged.percentiles else replace(merged, percentiles="")


def _page(text: str) -> int | str:
    if text == STACK:
        return text
    if not text.isdigit():
        raise UserError(f"page {text!r}: must be a number from 0, or {STACK}")
    return int(text)


def _axes(text: str) -> str:
    axes = text.upper()
    if not (set("HW") <= set(axes) <= set("NCHW") and len(set(axes)) == len(axes)):
        raise UserError(f"axes {text!r}: must be such as HW, HWC, CHW, NHW: {_MOST_CHANNELS_HINT}")
    return axes


def _shape(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.replace("x", ",").split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UserError(f"raw shape {text!r}: must be whole numbers, such as 512,512")
    return tuple(map(int, parts))


def _dtype(text: str) -> str:
    name = text.lstrip("<>")
    try:
        kind = np.dtype(name)
    except TypeError:
        kind = np.dtype(object)
    if kind.kind not in "uifb" or len(text) - len(name) > 1:
        raise UserError(f"raw dtype {text!r}: must be such as uint8, uint16, >uint16, float32")
    return text


def _offset(text: str) -> int:
    if not text.isdigit():
        raise UserError(f"raw offset {text!r}: must be a whole number from 0")
    return int(text)


def _nan(text: str) -> str:
    if text not in NAN_RULES:
        raise UserError(f"nan {text!r}: must be one of {', '.join(NAN_RULES)}")
    return text


def _links(text: str) -> str:
    if text not in ("refuse", FOLLOW):
        raise UserError(f"links {text!r}: must be refuse or {FOLLOW}")
    return "" if text == "refuse" else text


def _exif(text: str) -> str:
    if text not in ("apply", "ignore"):
        raise UserError(f"exif {text!r}: must be apply or ignore")
    return "" if text == "apply" else text


def _extra(text: str) -> str:
    if text not in ("drop", "band"):
        raise UserError(f"extra {text!r}: must be drop or band")
    return text


def _percentiles(text: str) -> str:
    if text not in ("exact", "sampled"):
        raise UserError(f"percentiles {text!r}: must be exact or sampled")
    return "" if text == "exact" else text


_PARSERS: dict[str, Any] = {
    "page": _page,
    "axes": _axes,
    "array": str,
    "shape": _shape,
    "dtype": _dtype,
    "offset": _offset,
    "nan": _nan,
    "links": _links,
    "exif": _exif,
    "extra": _extra,
    "intensity": parse_intensity,
    "percentiles": _percentiles,
}
