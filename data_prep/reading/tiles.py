"""Tiles of large pictures: their places, and the text form `x,y,width,height` of one tile."""

from functools import lru_cache
from typing import Literal, NamedTuple

from data_prep.errors import UserError


class TileBox(NamedTuple):
    """A part of a picture, in pixels from its upper left corner."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        """The form in a manifest: `x,y,width,height`."""
        return ",".join(map(str, self))


@lru_cache(maxsize=4096)
def parse_box(text: str) -> TileBox:
    """Reads `x,y,width,height`.

    Raises:
        UserError: Not four whole numbers, or an empty tile.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        raise UserError(f"tile {text!r}: must be x,y,width,height in whole pixels")
    box = TileBox(*map(int, parts))
    if not box.width or not box.height:
        raise UserError(f"tile {text!r}: is empty")
    return box


def check_inside(box: TileBox, height: int, width: int) -> None:
    """Raises UserError unless the tile lies in a picture of this size."""
    if box.x + box.width > width or box.y + box.height > height:
        raise UserError(f"tile {box} does not lie in the picture of {width}x{height} pixels")


def cut(
    height: int, width: int, size: int, overlap: int = 0, rest: Literal["drop", "keep"] = "drop"
) -> list[TileBox]:
    """Square tiles of a picture, row by row from the upper left corner.

    Args:
        height: Of the picture.
        width: Of the picture.
        size: Side of a tile.
        overlap: Pixels that neighbours share, less than `size`.
        rest: What remains at the right and lower edge: "drop" leaves it out; "keep" takes one more
            tile that ends at the edge and so overlaps its neighbour by more. Along a side that is
            shorter than a tile, "keep" takes all of it.

    Raises:
        UserError: Impossible size or overlap.
    """
    if size < 1 or not 0 <= overlap < size:
        raise UserError(
            f"--tile={size} --overlap={overlap}: the overlap must be less than the tile"
        )
    columns = _starts(width, size, size - overlap, rest)
    return [
        TileBox(x, y, min(size, width), min(size, height))
        for y in _starts(height, size, size - overlap, rest)
        for x in columns
    ]


def _starts(length: int, size: int, step: int, rest: str) -> list[int]:
    starts = list(range(0, length - size + 1, step))
    if rest == "keep" and (not starts or starts[-1] + size < length):
        starts.append(max(0, length - size))
    return starts
