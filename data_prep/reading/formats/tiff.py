"""TIFF files: their facts and their pixels, by tifffile with the codecs of imagecodecs.

One image of a file is one of its planes (pages), or several of them as channels:

- nothing declared: the first page; the channels of an ImageJ or OME file (axis C alone) together.
  Stacks of several axes, and arrays that tifffile saved plane by plane, are ambiguous and refused.
- page=K: plane K, in the order of the file; page=stack: all planes as channels.
- axes with N and C (NCHW): image K of page=K has all channels of the file's axis C.

The Orientation tag (274) is applied as in other pictures, WhiteIsZero is inverted, palettes and
CMYK become colour, alpha is dropped. Samples whose meaning the file does not say are dropped or
taken as bands as declared, and refused if nothing is; but three grey samples or more are bands.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import tifffile

from data_prep.errors import UserError, damage_refused
from data_prep.reading.formats.picture import (
    Decoder,
    Picture,
    Stored,
    valid_orientation,
    value_bits,
)
from data_prep.reading.formats.tiff_pages import check_pages
from data_prep.reading.intensity import needs_rule
from data_prep.reading.spec import STACK, Reading
from data_prep.reading.tiles import TileBox

STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_UNSPECIFIED = 0
_JPEG = (6, 7, 34892, 33007)
_GRAY = ("MINISBLACK", "MINISWHITE", "MASK")
_COLORS = ("RGB", "YCBCR", "SEPARATED")
_PLANE_AXES = "YXS"
_CMYK = 1  # InkSet
_FEW_CHUNKS = 4  # of a page: fewer are not worth reading apart


@dataclass(frozen=True, eq=False)
class _Image:
    """The image of a file that a reading selects.

    Attributes:
        page: The page that its planes are like.
        planes: Pages, or offsets of planes in a file that has one page for all of them.
        channels: Bands that count: palettes give 3, alpha is dropped.
        bits: As `Picture.bits`.
        orientation: As the file notes it.
    """

    page: Any
    planes: list[Any]
    channels: int
    bits: int
    orientation: int


def read_facts(stream: BinaryIO, reading: Reading) -> Picture:
    """The facts from the header.

    Args:
        stream: The file.
        reading: What is declared of it.

    Raises:
        UserError: Not readable, truncated, no such page, ambiguous, or of values without a range.
    """
    with _opened(stream, "damaged TIFF header") as file:
        image = _find(file, reading)
        _check_whole(image, stream.seek(0, 2))
        page = image.page
        return Picture(
            page.imagelength, page.imagewidth, image.channels, image.bits, Decoder.PYTHON,
            image.orientation,
        )  # fmt: skip


def count_pages(stream: BinaryIO, reading: Reading) -> int:
    """Number of images of a file whose header could be read: of planes, or along axis N."""
    with _opened(stream, "damaged TIFF header") as file:
        if _channels_declared(reading):
            planes, per_image = _hyperstack(file)
            return len(planes) // per_image
        return len(_all_planes(file))


def read_pixels(stream: BinaryIO, reading: Reading, box: TileBox | None = None) -> Stored:
    """Values of one image, in the order in which they are stored (not turned).

    Args:
        stream: The file.
        reading: What is declared of it.
        box: Only this part; strips and tiles outside of it are not decoded.

    Raises:
        UserError: The pixels cannot be decoded.
    """
    with _opened(stream, "TIFF cannot be decoded") as file:
        image = _find(file, reading)
        page = image.page
        box = box or TileBox(0, 0, page.imagewidth, page.imagelength)
        depth = _depth(page)
        planes = [_plane(file, stream, page, plane, box) for plane in image.planes]
        pixels = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
        photometric = _photometric(page)
        if len(image.planes) == 1:
            if photometric == "PALETTE":
                return Stored(_expanded(page.colormap, pixels[:, :, 0]), 8)
            if photometric == "SEPARATED":
                return Stored(_from_cmyk(pixels, depth), depth)
            if _takes_libtiff(page):
                return Stored(pixels, 8)
        if photometric == "MINISWHITE":
            pixels = _inverted(pixels, depth)
        return Stored(pixels[:, :, : image.channels], depth)


@contextmanager
def _opened(stream: BinaryIO, problem: str) -> Iterator[Any]:
    """The file, with what goes wrong in one line."""
    stream.seek(0)
    with damage_refused(problem):
        check_pages(stream)
        stream.seek(0)
        # Multi-file OME sets would have other files opened.
        with tifffile.TiffFile(stream, _multifile=False) as file:
            yield file


def _channels_declared(reading: Reading) -> bool:
    return {"N", "C"} <= set(reading.axes)


def _find(file: Any, reading: Reading) -> _Image:
    """The image that the reading selects."""
    planes = _chosen_planes(file, reading)
    if any(plane is None for plane in planes):
        raise UserError("OME TIFF that does not hold all of its planes: save it anew")
    page = file.pages.first if isinstance(planes[0], int) else planes[0].keyframe
    if page.imagedepth > 1:
        raise UserError("TIFF of volumes (ImageDepth): save each slice as a page")
    channels = _channels(page, reading)
    if len(planes) > 1:
        alike = all(
            (key.shape, key.dtype, key.bitspersample, key.photometric)
            == (page.shape, page.dtype, page.bitspersample, page.photometric)
            for key in (plane.keyframe for plane in planes if not isinstance(plane, int))
        )
        if page.samplesperpixel > 1 or _photometric(page) == "PALETTE" or not alike:
            raise UserError("pages of several channels, sizes or types cannot be stacked")
        channels = len(planes)
    orientation = valid_orientation(page.tags.valueof(274, 1))
    return _Image(page, planes, channels, _bits(page, reading), orientation)


def _chosen_planes(file: Any, reading: Reading) -> list[Any]:
    if _channels_declared(reading):
        planes, per_image = _hyperstack(file)
        images = len(planes) // per_image
        if not isinstance(reading.page, int):
            raise UserError(f"stack of {images} images: say which, --page=0 or --page=all")
        _check_page(reading.page, images)
        return planes[reading.page * per_image : (reading.page + 1) * per_image]
    if reading.page == STACK or (reading.page is None and "C" in reading.axes):
        return _all_planes(file)
    if isinstance(reading.page, int):
        places = check_pages(file.filehandle)
        if len(places) > 1 and not (file.is_lsm or file.is_ndpi):
            _check_page(reading.page, len(places))
            # `file.pages` would go over all pages before it.
            file.filehandle.seek(places[reading.page])
            return [tifffile.TiffPage(file, index=reading.page)]
        planes = file.pages if len(file.pages) > 1 else _all_planes(file)
        _check_page(reading.page, len(planes))
        return [planes[reading.page]]
    return _undeclared_planes(file)


def _check_page(page: int, number: int) -> None:
    if page >= number:
        raise UserError(f"there is no page {page}: the file holds {number}")


def _undeclared_planes(file: Any) -> list[Any]:
    """The planes of the image if nothing is declared; refuses ambiguous files."""
    if file.is_ome and file.series[0].kind != "ome":
        raise UserError(
            "OME TIFF of a set of several files: say --page=0, --page=all, ... for the planes of"
            " this file alone, or save the set as one file"
        )
    axes = _stack_axes(file)
    names = "".join(name for name, _ in axes)
    number = math.prod(length for _, length in axes)
    if len(names) > 1 or "Q" in names:
        shown = " x ".join(f"{name} {length}" for name, length in axes)
        if "Q" in names:
            shown = f"{number} planes without names of their axes"
        whole = ", --axes=NCHW (images with all channels)" if "C" in names else ""
        raise UserError(
            f"stack of {shown}: say what it is, --page=0 (one plane), --page=all (each plane an"
            f" image){whole} or --page=stack (all planes as channels of one image)"
        )
    if names == "C":
        return _series_planes(file)
    if file.pages.first.is_reduced:
        raise UserError(
            f"the first of {len(file.pages)} pages is a reduced picture (thumbnail): say which page"
            " counts, such as --page=1; camera files are to be developed first"
        )
    return [file.pages.first]


def _stack_axes(file: Any) -> list[tuple[str, int]]:
    """Axes of the first series beside those of a page, longer than 1: name and length."""
    series = file.series[0]
    if series.kind in ("generic", "uniform"):
        return []  # plain pages
    return [
        (name, int(length))
        for name, length in zip(series.axes, series.shape, strict=True)
        if name not in _PLANE_AXES and length > 1
    ]


def _all_planes(file: Any) -> list[Any]:
    """Every page of a file; the planes of one that describes them by a single page."""
    pages = list(file.pages)
    if len(pages) == 1 and len(planes := _series_planes(file)) > 1:
        return planes
    return pages


def _series_planes(file: Any) -> list[Any]:
    """The planes of the first series: pages, or offsets where one page stands for all."""
    series, first = file.series[0], file.pages.first
    size = math.prod(first.shape)
    number = int(series.size // max(1, size))
    pages = list(series.pages)
    if len(pages) >= number or number < 2:
        return pages
    if series.dataoffset is None or first.compression != 1 or first.dtype is None:
        raise UserError("TIFF stack of one page that is compressed: save it anew")
    step = size * first.dtype.itemsize
    return [int(series.dataoffset) + step * plane for plane in range(number)]


def _hyperstack(file: Any) -> tuple[list[Any], int]:
    """All planes, image by image, and the number of channels of each image."""
    axes = _stack_axes(file)
    names = [name for name, _ in axes]
    if names.count("C") != 1:
        found = "".join(names) or "none beside height and width"
        raise UserError(
            f"--axes with N and C: the TIFF has no axis of channels (its axes: {found})"
        )
    planes = _series_planes(file)
    order = np.arange(len(planes)).reshape([length for _, length in axes])
    order = np.moveaxis(order, names.index("C"), -1)
    return [planes[plane] for plane in order.ravel()], order.shape[-1]


def _photometric(page: Any) -> str:
    return str(getattr(page.photometric, "name", page.photometric))


def _channels(page: Any, reading: Reading) -> int:
    """Channels of a page; refuses samples that have no plain meaning."""
    photometric, samples = _photometric(page), page.samplesperpixel
    if photometric == "PALETTE":
        if samples != 1 or page.colormap is None:
            raise UserError("TIFF of a palette with further samples: save it as RGB")
        return 3
    if photometric not in (*_GRAY, *_COLORS):
        raise UserError(
            f"TIFF colours of kind {photometric}: develop or convert it, and save it as RGB or grey"
        )
    own = 1 if photometric in _GRAY else {"SEPARATED": 4}.get(photometric, 3)
    if photometric == "SEPARATED" and page.tags.valueof(332, _CMYK) != _CMYK:
        raise UserError("TIFF of inks that are not CMYK: save it as RGB")
    extra = [int(value) for value in page.extrasamples]
    extra += [_UNSPECIFIED] * max(0, samples - own - len(extra))
    unspecified = extra.count(_UNSPECIFIED)
    if samples < own:
        raise UserError(f"{photometric} TIFF of {samples} samples a pixel: damaged")
    shown = 1 if own == 1 else 3
    if unspecified and reading.extra == "drop":
        return shown
    bands = own == 1 and samples >= 3
    if unspecified and not bands and reading.extra != "band":
        kind = "grey" if own == 1 else photometric
        further = f"{unspecified} further sample{'s' if unspecified > 1 else ''}"
        raise UserError(
            f"{kind} TIFF with {further} whose meaning it does not say:"
            " say --extra_samples=drop (such as transparency) or --extra_samples=band"
        )
    if unspecified and photometric == "SEPARATED":
        raise UserError("CMYK TIFF with further bands: save it as RGB")
    if unspecified and any(value != _UNSPECIFIED for value in extra[:unspecified]):
        raise UserError("TIFF whose alpha comes before its bands: save the bands alone")
    return shown + unspecified


def _depth(page: Any) -> int:
    """Significant bits of a value."""
    bits = page.bitspersample
    return int(bits if isinstance(bits, int) else max(bits))


def _bits(page: Any, reading: Reading) -> int:
    """`Picture.bits` of a page; refuses types without a range."""
    kind, photometric = page.dtype, _photometric(page)
    if kind is None or kind.kind not in "buif" or isinstance(page.bitspersample, tuple):
        shown = kind.name if kind is not None else f"with {page.bitspersample} bits"
        raise UserError(
            f"TIFF pixels of type {shown}: save them as uint8, uint16 or float in [0, 1]"
        )
    if _takes_libtiff(page) and kind.name != "uint8":
        raise UserError(f"YCbCr TIFF of {kind.name} values: save it as RGB")
    if photometric == "PALETTE":
        return 8
    if photometric == "SEPARATED" and kind.kind not in "bu":
        raise UserError(f"CMYK TIFF of {kind.name} values: save it as RGB")
    if kind.kind == "f":
        return 32
    if kind.kind == "i":
        if not reading.active_intensity:
            raise needs_rule(kind.name)
        return 32
    depth = _depth(page)
    if depth > 16 and depth not in (32, 64):
        # Writers do not agree on the order of the bytes.
        raise UserError(f"TIFF of integers of {depth} bits: save them as uint16 or uint32")
    return value_bits(depth)


def _check_whole(image: _Image, size: int) -> None:
    """Complains of missing data."""
    page = image.page
    plane_bytes = math.prod(page.shape) * page.dtype.itemsize
    for plane in image.planes:
        if isinstance(plane, int):
            whole = plane + plane_bytes <= size
        else:
            offsets, counts = plane.dataoffsets, plane.databytecounts
            whole = len(offsets) >= math.prod(page.chunked) and all(
                offset + count <= size for offset, count in zip(offsets, counts, strict=True)
            )
            if page.compression == 1 and not page.is_tiled and 0 not in counts:
                row = math.ceil(page.imagewidth * page.samplesperpixel * _depth(page) / 8)
                if _photometric(page) != "YCBCR":
                    whole = whole and sum(counts) >= row * page.imagelength
        if not whole:
            raise UserError("truncated")


def reads_parts(stream: BinaryIO, reading: Reading) -> bool:
    """Returns True if reading a part of an image takes less than decoding all of it."""
    with _opened(stream, "damaged TIFF header") as file:
        image = _find(file, reading)
        plane, page = image.planes[0], image.page
        if _by_its_own(page):
            return False
        return _is_plain(plane, page) or math.prod(page.chunked) >= _FEW_CHUNKS


def _by_its_own(page: Any) -> bool:
    """Returns True if a page can be decoded as a whole only, for its JPEG tables or its YCbCr."""
    return page.jpegheader is not None or _takes_libtiff(page)


def _takes_libtiff(page: Any) -> bool:
    return _photometric(page) == "YCBCR" and page.compression not in _JPEG


def _is_plain(plane: Any, page: Any) -> bool:
    """Returns True if the values lie in the file as they are, one row after the other."""
    return isinstance(plane, int) or bool(page.is_memmappable and plane.is_contiguous)


def _plane(file: Any, stream: BinaryIO, page: Any, plane: Any, box: TileBox) -> np.ndarray:
    """A part of a plane: [h, w, samples]."""
    rows, columns = slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
    if _takes_libtiff(page):
        return _by_libtiff(stream, page)[rows, columns]
    if _photometric(page) == "YCBCR" and page.planarconfig == 2:
        raise UserError("YCbCr TIFF with planes of its own for each channel: save it as RGB")
    separate = page.shaped[0]
    if _is_plain(plane, page):
        start = plane if isinstance(plane, int) else plane.dataoffsets[0]
        stored = page.dtype.newbyteorder(file.byteorder)
        values = _plain_rows(stream, start, stored, page.shaped, box)
    elif _by_its_own(page) or (box.height, box.width) == (page.imagelength, page.imagewidth):
        values = plane.asarray(squeeze=False)[:, 0, rows, columns]
    else:
        values = _window(plane, page, rows, columns)
    # [separate samples, rows, columns, samples side by side]
    return values[0] if separate == 1 else np.moveaxis(values[..., 0], 0, -1)


def _plain_rows(
    stream: BinaryIO, start: int, stored: np.dtype, shaped: tuple[int, ...], box: TileBox
) -> np.ndarray:
    """A part of a page whose values lie one row after the other, from the byte `start` on."""
    separate, _, height, width, samples = shaped
    row = width * samples * stored.itemsize
    parts = []
    for plane in range(separate):
        stream.seek(start + (plane * height + box.y) * row)
        values = np.frombuffer(stream.read(box.height * row), stored)
        parts.append(values.reshape(box.height, width, samples)[:, box.x : box.x + box.width])
    return np.stack(parts).astype(stored.newbyteorder("="))


def _window(plane: Any, page: Any, rows: slice, columns: slice) -> np.ndarray:
    """A part of a page, of which only the strips or tiles that it touches are decoded."""
    separate, _, _, _, samples = page.shaped
    out = np.zeros((separate, rows.stop - rows.start, columns.stop - columns.start, samples),
                   page.dtype)  # fmt: skip
    out[:] = page.nodata
    tables = {"jpegtables": plane.jpegtables} if page.compression in _JPEG else {}
    handle = plane.parent.filehandle
    for index, (offset, count) in enumerate(
        zip(plane.dataoffsets, plane.databytecounts, strict=True)
    ):
        _, (sample, _, top, left, _), shape = page.decode(None, index, **tables)
        first, last = max(top, rows.start), min(top + shape[1], rows.stop)
        start, stop = max(left, columns.start), min(left + shape[2], columns.stop)
        # Sparse files leave out tiles without data.
        if sample >= separate or first >= last or start >= stop or not count:
            continue
        handle.seek(offset)
        segment = page.decode(handle.read(count), index, **tables)[0][0]
        out[sample, first - rows.start : last - rows.start,
            start - columns.start : stop - columns.start] = segment[
            first - top : last - top, start - left : stop - left]  # fmt: skip
    return out


def _by_libtiff(stream: BinaryIO, page: Any) -> np.ndarray:
    """YCbCr of 8 bits, perhaps with subsampled colour, decoded to RGB."""
    if page.tags.valueof(274, 1) != 1:
        raise UserError("YCbCr TIFF that is turned: save it as RGB")
    stream.seek(0)
    colors: np.ndarray = imagecodecs.tiff_decode(stream.read(), index=page.index, asrgb=True)
    if colors.shape[:2] != (page.imagelength, page.imagewidth):
        raise UserError("TIFF cannot be decoded (libtiff sees another size)")
    return colors[:, :, :3]


def _expanded(colormap: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Colours of the entries of a palette, which has 16 bits a channel: uint8 [H, W, 3]."""
    # As libtiff, look through palettes that wrongly have 8 bits.
    entries = colormap.T if colormap.max() < 256 else colormap.T >> 8
    colors: np.ndarray = entries.astype(np.uint8)[numbers]
    return colors


def _from_cmyk(inks: np.ndarray, depth: int) -> np.ndarray:
    """Red, green and blue that are left of white: (1 - ink)(1 - black), of the same type."""
    most = (1 << depth) - 1
    light = most - inks[:, :, :4].astype(np.float64)
    colors: np.ndarray = np.rint(light[:, :, :3] * light[:, :, 3:] / most).astype(inks.dtype)
    return colors


def _inverted(pixels: np.ndarray, depth: int) -> np.ndarray:
    """White for black, over the whole range of the type; of floating point 1 for 0."""
    if pixels.dtype.kind == "f":
        return pixels.dtype.type(1) - pixels
    if pixels.dtype.kind == "u":
        return pixels.dtype.type((1 << depth) - 1) - pixels
    return ~pixels
