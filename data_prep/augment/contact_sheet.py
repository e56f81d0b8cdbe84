"""Sheets of augmented images: bare tiles, and rows with names to look at."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.storage import write_bytes

_GAP = 2
_CELL_INCHES = 1.3
_LETTER_INCHES = 0.062  # of the monospaced font below
_FONT_SIZE = 7
_LONGEST = 24  # letters of a row's name
_DPI = 120


@dataclass(frozen=True)
class SheetRow:
    """One row of a sheet.

    Attributes:
        names: Lines at its left, such as class and file.
        images: [H, W, C], uint8 or float in [0, 1], of any sizes.
    """

    names: tuple[str, ...]
    images: Sequence[np.ndarray]


def showable(image: np.ndarray) -> np.ndarray:
    """An image as uint8 [..., 3].

    Of one or two channels the first is shown grey, of more than three the first three as colour.

    Args:
        image: [..., C], uint8 or float in [0, 1].
    """
    rgb = np.repeat(image[..., :1], 3, axis=-1) if image.shape[-1] < 3 else image[..., :3]
    if rgb.dtype == np.uint8:
        return rgb
    return np.clip(rgb * 255 + 0.5, 0, 255).astype(np.uint8)


def tiled(images: np.ndarray) -> np.ndarray:
    """Lays images [columns, rows, h, w, C] out with a white gap; uint8 [H, W, 3]."""
    columns, rows, height, width = images.shape[:4]
    tiles = showable(images)
    down, right = height + _GAP, width + _GAP
    picture = np.full((rows * down - _GAP, columns * right - _GAP, 3), 255, np.uint8)
    for column in range(columns):
        for row in range(rows):
            y, x = row * down, column * right
            picture[y : y + height, x : x + width] = tiles[column, row]
    return picture


def write_sheet(
    path: str | os.PathLike[str], title: str, columns: Sequence[str], rows: Sequence[SheetRow]
) -> None:
    """Draws rows of images with names at the left and above; the same PNG for the same images.

    Args:
        path: PNG to write; its folder is made.
        title: Above all.
        columns: Above the images of the first row.
        rows: Each with an image a column.
    """
    sheet = Path(path)
    sheet.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(sheet, _drawn(title, columns, rows))


def _drawn(title: str, columns: Sequence[str], rows: Sequence[SheetRow]) -> bytes:
    from matplotlib.figure import Figure

    names = [[_short(name) for name in row.names] for row in rows]
    longest = max((len(name) for lines in names for name in lines), default=0)
    left, top = 0.15 + _LETTER_INCHES * longest, 0.6
    width = max(left + len(columns) * _CELL_INCHES, 0.2 + 0.07 * len(title))
    height = top + len(rows) * _CELL_INCHES
    figure = Figure(figsize=(width, height), dpi=_DPI)
    font: dict[str, Any] = {
        "family": "DejaVu Sans Mono",
        "fontsize": _FONT_SIZE,
        "parse_math": False,
    }
    figure.text(0.1 / width, 1 - 0.2 / height, title, va="center", fontsize=9, parse_math=False)
    for row, (lines, images) in enumerate(zip(names, (r.images for r in rows), strict=True)):
        middle = 1 - (top + (row + 0.5) * _CELL_INCHES) / height
        figure.text(
            (left - 0.08) / width, middle, "\n".join(lines), ha="right", va="center", **font
        )
        for column, (name, image) in enumerate(zip(columns, images, strict=True)):
            place = (
                (left + (column + 0.02) * _CELL_INCHES) / width,
                middle - 0.48 * _CELL_INCHES / height,
                0.96 * _CELL_INCHES / width,
                0.96 * _CELL_INCHES / height,
            )
            axes = figure.add_axes(place)
            axes.imshow(showable(image), aspect="equal")
            axes.set_axis_off()
            if row == 0:
                x = (left + (column + 0.5) * _CELL_INCHES) / width
                figure.text(x, 1 - 0.5 / height, name, ha="center", va="center", **font)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()


def _short(name: str) -> str:
    """A name that fits: long ones lose their middle."""
    if len(name) <= _LONGEST:
        return name
    tail = (_LONGEST - 1) // 2
    return f"{name[: _LONGEST - 1 - tail]}…{name[-tail:]}"
