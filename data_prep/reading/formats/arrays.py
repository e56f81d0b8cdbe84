"""The format of a file that holds an array, and one image of the array: page, axes, tile."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

import numpy as np

from data_prep.errors import UserError, damage_refused
from data_prep.reading.formats import fits, hdf5, hdf5_process, hdf5_stream, npy, raw
from data_prep.reading.formats.source import BZIP2_START, GZIP_START, FileSource, opened
from data_prep.reading.intensity import needs_rule
from data_prep.reading.limits import ReadLimits
from data_prep.reading.spec import STACK, Reading
from data_prep.reading.tiles import TileBox, check_inside

OpenArray: TypeAlias = Callable[[FileSource, Reading], AbstractContextManager[Any]]
_OpenBounded: TypeAlias = Callable[[FileSource, Reading, ReadLimits], AbstractContextManager[Any]]

NO_LIMITS = ReadLimits()

_SUFFIXES = [".npy", ".npz", *fits.SUFFIXES, ".h5", ".hdf5"]
_BY_START: list[tuple[bytes, _OpenBounded]] = [
    (npy.START, npy.open_array),
    (npy.ARCHIVE_START, npy.open_archive),
    (hdf5_stream.START, hdf5_process.open_array),
    (fits.START, fits.open_array),
    (GZIP_START, fits.open_array),
    (BZIP2_START, fits.open_array),
]

_PICTURE_STARTS = (b"\xff\xd8", b"\x89PNG", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+",
                   b"GIF8", b"BM", b"RIFF")  # fmt: skip


def array_suffixes() -> tuple[str, ...]:
    """Endings of the files that are read here, registered ones too."""
    return tuple(_SUFFIXES)


def register_format(suffixes: Sequence[str], start: bytes, open_array: OpenArray) -> None:
    """Adds a file format, which all commands read from then on: docs/extend.md.

    Args:
        suffixes: Its endings, such as `(".pgm",)`.
        start: The bytes that its files, and no others, begin with: 2 to 16.
        open_array: A context manager that gives the stored array, see `data_prep.reading.formats`.

    Raises:
        ValueError: Files of another format may begin with these bytes.
    """
    known = {*_PICTURE_STARTS, *(magic for magic, _ in _BY_START)}
    if not 2 <= len(start) <= 16 or any(start.startswith(m) or m.startswith(start) for m in known):
        raise ValueError(f"{start!r} does not tell a file from those of other formats")
    _BY_START.append((start, lambda source, reading, limits: open_array(source, reading)))
    _SUFFIXES.extend(suffix.lower() for suffix in suffixes)


def holds_array(start: bytes, source: FileSource, reading: Reading) -> bool:
    """Returns True for a file of one of these formats, by its content or declared RAW.

    Args:
        start: The file's first bytes.
        source: The file.
        reading: What is declared of it.
    """
    if _is_raw(source, reading):
        return True
    if any(start.startswith(magic) for magic, _ in _BY_START):
        return True
    if start.startswith(_PICTURE_STARTS):
        return False
    return bool(reading.shape) or hdf5.after_user_block(source)


def _is_raw(source: FileSource, reading: Reading) -> bool:
    if not isinstance(source, str):
        return False
    return bool(reading.shape) and os.path.splitext(source)[1].lower() in raw.SUFFIXES


@contextmanager
def open_array(
    source: FileSource, reading: Reading, limits: ReadLimits = NO_LIMITS
) -> Iterator[Any]:
    """The stored array of a file of any of these formats.

    Args:
        source: The file.
        reading: What is declared of it.
        limits: Bounds on the memory taken before the size of the image is known.

    Raises:
        UserError: It cannot be read, or does not hold numbers.
    """
    with (
        damage_refused("cannot be read"),
        _opener(source, reading)(source, reading, limits) as array,
    ):
        if array.dtype.kind not in "uifb":
            raise UserError(
                f"holds values of type {array.dtype}, which are no intensities; save them as"
                " numbers, such as float32"
            )
        yield array


def _opener(source: FileSource, reading: Reading) -> _OpenBounded:
    if _is_raw(source, reading):
        return raw.open_array
    with opened(source) as stream:
        start = stream.read(16)
        stream.seek(0)
    for magic, opener in _BY_START:
        if start.startswith(magic):
            return opener
    return raw.open_array if reading.shape else hdf5_process.open_array


def check_range(kind: np.dtype, reading: Reading) -> None:
    """Refuses integers with a sign that no intensity rule maps to [0, 1].

    Raises:
        UserError: Such integers, and no rule.
    """
    if kind.kind == "i" and not reading.active_intensity:
        raise needs_rule(kind.name)


def image_axes(shape: tuple[int, ...], reading: Reading) -> str:
    """The axes of an array as declared; undeclared, HW if no other axis is longer than 1.

    Returns:
        Letters as in `Reading.axes`, with a `1` for each leading axis of length 1 left undeclared.

    Raises:
        UserError: The declaration is missing or does not fit.
    """
    axes = reading.axes or "HW"
    surplus = len(shape) - len(axes)
    if surplus < 0 or any(length != 1 for length in shape[:surplus]):
        shown = "x".join(map(str, shape))
        if reading.axes:
            raise UserError(f"array of shape {shown} does not have the axes {axes}")
        raise UserError(
            f"array of shape {shown}: say which axis is which, such as --axes=CHW, HWC or NHW"
        )
    axes = "1" * surplus + axes
    if reading.page == STACK and "N" in axes:
        if "C" in axes:
            raise UserError(f"axes {axes}: pages cannot be stacked as channels, there are channels")
        axes = axes.replace("N", "C")
    if any(length < 1 for length in shape):
        raise UserError("array without values")
    return axes


def image_size(shape: tuple[int, ...], reading: Reading) -> tuple[int, int, int]:
    """Height, width and channels of one image of an array.

    Raises:
        UserError: Axes or page do not fit.
    """
    axes = image_axes(shape, reading)
    _check_page(axes, shape, reading)
    sizes = dict(zip(axes, shape, strict=True))
    return sizes["H"], sizes["W"], sizes.get("C", 1)


def count_images(shape: tuple[int, ...], reading: Reading) -> int:
    """Images along axis N; 1 without it."""
    axes = image_axes(shape, reading)
    return dict(zip(axes, shape, strict=True)).get("N", 1)


def _check_page(axes: str, shape: tuple[int, ...], reading: Reading) -> int:
    page = reading.page if isinstance(reading.page, int) else None
    images = shape[axes.index("N")] if "N" in axes else 1
    if page is None and "N" in axes:
        raise UserError(f"stack of {images} images: say which, --page=0 or --page=all")
    if page is not None and page >= images:
        raise UserError(f"there is no page {page}: the file holds {images}")
    return page or 0


def read_array(
    source: FileSource,
    reading: Reading,
    box: TileBox | None = None,
    limits: ReadLimits = NO_LIMITS,
) -> np.ndarray:
    """One image of a file, as stored.

    Args:
        source: The file.
        reading: What is declared of it.
        box: Only this part, which alone is read where the format allows.
        limits: Largest size of the whole image.

    Returns:
        [H, W, C] of the stored type, in the machine's byte order. Integers that the file calls
        undefined are masked (`numpy.ma`).

    Raises:
        UserError: It cannot be read as declared.
    """
    with open_array(source, reading, limits) as array:
        check_range(array.dtype, reading)
        axes = image_axes(array.shape, reading)
        page = _check_page(axes, array.shape, reading)
        index: dict[str, Any] = {"N": page, "1": 0, "C": slice(None)}
        sizes = dict(zip(axes, array.shape, strict=True))
        limits.check(sizes["H"], sizes["W"], sizes.get("C", 1), array.dtype.itemsize)
        box = box or TileBox(0, 0, sizes["W"], sizes["H"])
        check_inside(box, sizes["H"], sizes["W"])
        index["H"] = slice(box.y, box.y + box.height)
        index["W"] = slice(box.x, box.x + box.width)
        values = np.asanyarray(array[tuple(index[axis] for axis in axes)])
    left = [axis for axis in axes if axis in "HWC"]
    if "C" not in left:
        left.append("C")
        values = values[..., np.newaxis]
    values = values.transpose([left.index(axis) for axis in "HWC"])
    kind = values.dtype.newbyteorder("=")
    if isinstance(values, np.ma.MaskedArray):
        return values.astype(kind, order="C")
    return np.array(values, kind, order="C")
