"""Thumbnails as tiles of a few large pictures."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

_BLOCK = 16  # pixels: JPEG keeps blocks of so many apart, so that tiles do not run into each other
_LARGEST_TILE = 96
_ATLAS_SIDE = 1024  # a picture of this size is decoded in a few milliseconds
_QUALITY = 80
_PAPER = (255, 255, 255)


@dataclass(frozen=True)
class Atlas:
    """Pictures that hold all thumbnails as tiles, and their layout.

    Attributes:
        tile: Pixels of a tile's side; thumbnails are centred in it on white.
        across: Tiles in a row.
        per_picture: Tiles in a picture, row by row; the last picture may have fewer rows.
        pictures: JPEG bytes.
    """

    tile: int
    across: int
    per_picture: int
    pictures: list[bytes]


def make_atlas(thumbnails: Sequence[bytes], side: int = _ATLAS_SIDE) -> Atlas:
    """Lays thumbnails out, in their order.

    Args:
        thumbnails: Image files' bytes; larger ones than 96 pixels are shrunk.
        side: Pixels of a picture's side, at most.
    """
    images = [_opened(data) for data in thumbnails]
    longest = max(max(image.size) for image in images)
    tile = min(_LARGEST_TILE, _BLOCK * math.ceil(longest / _BLOCK))
    across = side // tile
    per_picture = across * across
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    pictures = []
    for start in range(0, len(images), per_picture):
        sheet = lay_out(images[start : start + per_picture], tile, across, mode)
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
        pictures.append(buffer.getvalue())
    return Atlas(tile, across, per_picture, pictures)


def sprite(thumbnails: Sequence[bytes], tile: int, largest: int) -> tuple[bytes, int]:
    """All thumbnails in one square picture.

    Args:
        thumbnails: Image files' bytes.
        tile: Pixels of a tile's side, fewer where there are too many tiles.
        largest: Pixels of the picture's side, at most.

    Returns:
        JPEG bytes, and the side of a tile.
    """
    across = math.ceil(math.sqrt(len(thumbnails)))
    tile = min(tile, largest // across)
    sheet = lay_out([_opened(data) for data in thumbnails], tile, across, "RGB", rows=across)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue(), tile


def lay_out(
    images: Sequence[Image.Image], tile: int, across: int, mode: str, rows: int = 0
) -> Image.Image:
    """A picture of images row by row, each centred in a tile; as many rows as it takes, or more."""
    rows = max(rows, math.ceil(len(images) / across))
    columns = across if rows > 1 else len(images)
    sheet = Image.new("RGB", (columns * tile, rows * tile), _PAPER).convert(mode)
    for position, image in enumerate(images):
        shown = image
        if max(image.size) > tile:
            shown = image.copy()
            shown.thumbnail((tile, tile), Image.Resampling.LANCZOS)
        row, column = divmod(position, across)
        left = column * tile + (tile - shown.width) // 2
        top = row * tile + (tile - shown.height) // 2
        sheet.paste(shown.convert(mode), (left, top))
    return sheet


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
