"""A labelled contact sheet of a synthetic set: a few pictures of every class."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.manifest.manifest import Manifest
from data_prep.storage import write_bytes
from data_prep.synthetic.kinds import Kind

_TILE_INCHES = 0.8
_MOST_INCHES = 6.5  # of all rows together
_DPI = 100
_MOST_BYTES = 150_000  # noise does not compress: colours are given up until the file is so small
_TITLE_INCHES = 0.25
_LETTER_INCHES = 0.08

Tile = tuple[str, np.ndarray]


def write_sheet(
    path: str | os.PathLike[str], kind: Kind, manifest: Manifest, columns: int = 7
) -> None:
    """Draws the first pictures of every class, one class a row.

    Args:
        path: PNG to write; its folder is made.
        kind: what the set shows.
        manifest: the set, as `write_set` returns it.
        columns: pictures in a row; of paired sets, at most this many, whole samples only.
    """
    rows = {
        name: _tiles(kind, manifest, name, columns) for name in manifest_classes(kind, manifest)
    }
    sheet = Path(path)
    sheet.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(sheet, _compressed(_figure(rows)))


def manifest_classes(kind: Kind, manifest: Manifest) -> list[str]:
    """The classes of the kind that the set has, in the kind's order."""
    return [name for name in kind.classes if name in manifest.class_names]


def _tiles(kind: Kind, manifest: Manifest, class_name: str, columns: int) -> list[Tile]:
    """Titles and pictures of one row."""
    records = [record for record in manifest.records if record.label == class_name]
    root = Path(manifest.root)
    if not records[0].target:
        return [("", _shown(root / one.path, kind.display_power)) for one in records[:columns]]
    tiles = []
    for first, second in zip(records[::2], records[1::2], strict=True):
        tiles += [("depth", _shown(root / first.target))]
        tiles += [
            (f"SEM {n + 1}", _shown(root / one.path)) for n, one in enumerate((first, second))
        ]
    real = sorted((root / "real_sem" / class_name).glob("*.png"))
    whole = max(1, (columns - 2) // 3)
    return tiles[: 3 * whole] + [("'real'", _shown(file)) for file in real[:2]]


def _shown(file: Path, power: float = 1.0) -> np.ndarray:
    """A picture in [0, 1] as it is shown: float [H, W] or [H, W, 3]; NaN is left white."""
    if file.suffix == ".npy":
        values = np.load(file).astype(np.float64)
        low, high = np.nanpercentile(values, (1, 99.7))
        return np.asarray(np.clip((values - low) / max(high - low, 1e-12), 0, 1))
    with Image.open(file) as image:
        pixels = np.asarray(image)
    return (pixels / np.iinfo(pixels.dtype).max) ** power


def _figure(rows: dict[str, list[Tile]]) -> Image.Image:
    """The sheet: RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(len(tiles) for tiles in rows.values())
    shape = next(iter(rows.values()))[0][1].shape
    tile_height = min(_TILE_INCHES * shape[0] / shape[1], _MOST_INCHES / len(rows))
    tile_width = tile_height * shape[1] / shape[0]
    titled = any(title for tiles in rows.values() for title, _ in tiles)
    left = 0.2 + _LETTER_INCHES * max(len(name) for name in rows)
    top = _TITLE_INCHES if titled else 0.04
    width, height = left + columns * tile_width, top + len(rows) * tile_height
    figure = Figure(figsize=(width, height), dpi=_DPI)
    for row, (name, tiles) in enumerate(rows.items()):
        bottom = 1 - (top + (row + 1) * tile_height) / height
        figure.text(
            (left - 0.08) / width,
            bottom + tile_height / height / 2,
            name,
            ha="right",
            va="center",
            fontsize=9,
            family="DejaVu Sans Mono",
        )
        for column, (title, pixels) in enumerate(tiles):
            place = (
                (left + column * tile_width) / width,
                bottom,
                0.97 * tile_width / width,
                0.97 * tile_height / height,
            )
            axes = figure.add_axes(place)
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, aspect="auto")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title, fontsize=8, pad=3)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _compressed(picture: Image.Image) -> bytes:
    """A small PNG: grey in few even levels, colours in a small palette."""
    gray = np.asarray(picture.convert("L"))
    is_gray = (np.asarray(picture) == gray[:, :, None]).all()
    for colors in (64, 32, 16):
        if is_gray:
            levels = np.rint(gray / 255 * (colors - 1)) / (colors - 1)
            few = Image.fromarray(np.rint(255 * levels).astype(np.uint8))
        else:
            few = picture.quantize(colors, dither=Image.Dither.NONE)
        stream = io.BytesIO()
        few.save(stream, "PNG", optimize=True)
        if stream.tell() <= _MOST_BYTES:
            break
    return stream.getvalue()
