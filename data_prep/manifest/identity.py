"""Identity of an image: its file, the array and page in the file, and the tile of the picture.

A file may hold many images, so its path alone does not name one. Two records are the same image if
`image_of` is the same for both. Of the declared reading, the array, the page and the offset in a
RAW file tell which image it is; the rest (axes, intensity rule, NaN rule, EXIF) tells how it is
seen.
"""

from typing import NamedTuple

from data_prep.reading.spec import STACK, Reading, parse_reading

ALL_AS_CHANNELS = -1
"""The page number of a picture whose channels are all pages of a file."""


class Picture(NamedTuple):
    """A picture in a file: what its tiles have in common.

    Attributes:
        file: The file, as the caller names it.
        array: HDF5 data set, member of an NPZ or extension of a FITS; empty = the only or first.
            For a RAW file, where its pixels begin: `offset 512`; empty = at once.
        page: Page of a TIFF or position in a stack, from 0; `ALL_AS_CHANNELS`. A file whose page is
            not named is read from its first one.
    """

    file: str
    array: str = ""
    page: int = 0


class Image(NamedTuple):
    """An image: a picture, or a tile of one.

    Attributes:
        file: See `Picture`.
        array: See `Picture`.
        page: See `Picture`.
        tile: Part of the picture, `x,y,width,height`; empty = all of it.
    """

    file: str
    array: str = ""
    page: int = 0
    tile: str = ""

    @property
    def picture(self) -> Picture:
        """The picture that the image is, or is a tile of."""
        return Picture(*self[:3])


def image_of(file: str, reading: str = "", tile: str = "") -> Image:
    """The image that a file, a reading and a tile name; see `manifest.Record`."""
    if not reading:
        return Image(file, tile=tile)
    declared = parse_reading(reading)
    return Image(file, declared.array.strip("/") or _offset(declared), _number(declared), tile)


def shares_file(reading: str, tile: str = "") -> bool:
    """Returns True if an image is a part of its file, so that the file's hash does not name it."""
    if not reading:
        return bool(tile)
    declared = parse_reading(reading)
    return bool(tile or declared.array or isinstance(declared.page, int) or _offset(declared))


def page_text(reading: str) -> str:
    """The page that a reading names, for a table; empty = none."""
    page = parse_reading(reading).page if reading else None
    return "" if page is None else str(page)


def array_text(reading: str) -> str:
    """The array that a reading names, for a table; empty = none."""
    return parse_reading(reading).array.strip("/") if reading else ""


def image_name(path: str, reading: str = "", tile: str = "") -> str:
    """A name of an image for people, such as `a/stack.npy, page 3 [0,0,64,64]`."""
    array, page = array_text(reading), page_text(reading)
    offset = _offset(parse_reading(reading)) if reading else ""
    name = path + (f", array {array}" if array else "") + (f", {offset}" if offset else "")
    if page:
        name += ", all pages" if page == STACK else f", page {page}"
    return name + (f" [{tile}]" if tile else "")


def _offset(declared: Reading) -> str:
    """Returns where the pixels of a RAW file begin: `offset 512`; empty if at once."""
    return f"offset {declared.offset}" if declared.shape and declared.offset else ""


def _number(declared: Reading) -> int:
    if isinstance(declared.page, int):
        return declared.page
    return ALL_AS_CHANNELS if declared.page == STACK else 0
