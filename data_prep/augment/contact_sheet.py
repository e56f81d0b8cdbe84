"""Sheets of augmented images: bare tiles, rows with names, and any recipe on a user's images."""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data_prep.augment.copies import (
    CopyPlan,
    copy_pixels,
    encode_like,
    kept_reading,
    part_name,
    part_of,
)
from data_prep.augment.draws import small_crop_seed
from data_prep.augment.image_data_generator import SupervisedConfig, resized, supervised_image
from data_prep.augment.views import ViewConfig, device_views, example_seed, host_views
from data_prep.errors import UserError
from data_prep.manifest.groups import inner_paths
from data_prep.manifest.manifest import Manifest, Record
from data_prep.reading.images import read_image, read_stored
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


ORIGINAL = "image"


def chosen_images(manifest: Manifest, number: int) -> Manifest:
    """A few images: the first of every class, then the second, ...; training images if split."""
    if "train" in manifest.splits:
        manifest = manifest.split("train")
    classes: dict[str, list[Record]] = defaultdict(list)
    for record in manifest.records:
        classes[record.label].append(record)
    turns = chain.from_iterable(zip_longest(*(classes[name] for name in sorted(classes))))
    return manifest.subset([record for record in turns if record][:number])


def view_rows(
    manifest: Manifest, config: ViewConfig, seed: int = 0, small: ViewConfig | None = None
) -> tuple[list[str], list[SheetRow]]:
    """The views that pretraining sees: names of the columns, and one row for each image.

    Args:
        manifest: The images.
        config: The recipe.
        seed: Of the run.
        small: The recipe of small crops beside the views.
    """
    names, images = _named(manifest), list(_images(manifest, config.channels))
    seeds = [example_seed(seed, 0, index) for index in range(len(images))]
    shown = [list(views) for views in _finished_views(images, seeds, config)]
    columns = [ORIGINAL, *_view_names(config)]
    if small:
        crops = _finished_views(images, [small_crop_seed(own) for own in seeds], small)
        shown = [[*views, *others] for views, others in zip(shown, crops, strict=True)]
        columns += [f"small crop {n + 1}" for n in range(small.num_views)]
    rows = [
        SheetRow(name, [image, *views])
        for name, image, views in zip(names, images, shown, strict=True)
    ]
    return columns, rows


def _finished_views(
    images: list[np.ndarray], seeds: list[tf.Tensor], config: ViewConfig
) -> np.ndarray:
    """Views [n, V, S, S, C] of images, float32 in [0, 1]."""
    made = [
        host_views(tf.constant(image), seed, config)
        for image, seed in zip(images, seeds, strict=True)
    ]
    # One batch, whatever the images' type: its photometry is compiled once.
    views = tf.stack([_to_float(view) for view, _ in made])
    finished: np.ndarray = device_views(
        views, tf.stack([draws for _, draws in made]), config
    ).numpy()
    return finished


def _view_names(config: ViewConfig) -> list[str]:
    """Names the views `view 1`, `view 2`, ...; views of several kinds also by kind and draw."""
    kinds = config.kinds_of_views
    if kinds == 1:
        return [f"view {n + 1}" for n in range(config.num_views)]
    return [f"view {n % kinds + 1}, draw {n // kinds + 1}" for n in range(config.num_views)]


def supervised_rows(
    manifest: Manifest,
    config: SupervisedConfig,
    *,
    channels: int,
    image_size: int,
    epochs: int,
    seed: int = 0,
) -> tuple[list[str], list[SheetRow]]:
    """The images that transfer learning sees in its first epochs, before any standardization."""
    rows = []
    for index, (name, image) in enumerate(
        zip(_named(manifest), _images(manifest, channels), strict=True)
    ):
        pixels = resized(tf.constant(image), image_size, image_size)
        made = [
            supervised_image(pixels, example_seed(seed, epoch, index), config).numpy() / 255
            for epoch in range(epochs)
        ]
        rows.append(SheetRow(name, [image, *made]))
    return [ORIGINAL, *(f"epoch {n + 1}" for n in range(epochs))], rows


def copy_rows(manifest: Manifest, number: int, plan: CopyPlan) -> tuple[list[str], list[SheetRow]]:
    """The same copies that `copies.write_copies` makes of a few images of a set."""
    rows = []
    identities = dict(zip(manifest.records, inner_paths(manifest), strict=True))
    chosen = chosen_images(manifest, number)
    for name, record, file in zip(_named(chosen), chosen.records, chosen.files(), strict=True):
        identity = identities[record] + part_name(record)
        pixels = part_of(read_stored(file, record.reading, spread=True), record)
        images = [read_image(file, None, record.reading, record.tile)]
        for operation, which in plan.copies_of_one():
            try:
                made = copy_pixels(pixels, operation, which, identity, plan.seed)
            except UserError as error:
                raise UserError(f"{file}: {error}") from None
            ending, content = encode_like(made, file, record.reading)
            images.append(read_image(content, None, kept_reading(record.reading, ending)))
        rows.append(SheetRow(name, images))
    many = [f"{operation} {number + 1}" for operation, number in plan.copies_of_one()]
    titles = [name.removesuffix(" 1") if plan.copies == 1 else name for name in many]
    return [ORIGINAL, *titles], rows


def _named(manifest: Manifest) -> list[tuple[str, ...]]:
    """Class and name of every image."""
    return [
        tuple(filter(None, (record.label, os.path.basename(record.picture_name), record.tile)))
        for record in manifest.records
    ]


def _images(manifest: Manifest, channels: int) -> Iterator[np.ndarray]:
    for file, record in zip(manifest.files(), manifest.records, strict=True):
        yield read_image(file, channels, record.reading, record.tile)


def _to_float(views: tf.Tensor) -> tf.Tensor:
    return tf.image.convert_image_dtype(views, tf.float32)
