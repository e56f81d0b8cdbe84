"""FITS files: the array of one extension, scaled as the standard says (BSCALE, BZERO, BLANK).

The whole file may be packed by gzip or bzip2, and an extension tile by tile (`fpack`, `.fits.fz`).
Row 0 is the first row of the file, which astronomers draw at the bottom.
"""

import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from data_prep.errors import UserError, damage_refused
from data_prep.reading.formats.source import (
    FileSource,
    exactly,
    file_size,
    opened,
    read_to_end,
    unpacked,
)
from data_prep.reading.limits import ReadLimits
from data_prep.reading.spec import Reading

START = b"SIMPLE  ="
SUFFIXES = tuple(
    ending + packing
    for ending in (".fits", ".fit", ".fts")
    for packing in ("", ".gz", ".bz2", ".fz")
)

_TYPES = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}  # by BITPIX
# The value of BZERO by which integers of the other sign are stored.
_SIGN_OFFSETS = {8: -128, 16: 2**15, 32: 2**31, 64: 2**63}
_COMPRESSIONS = (
    "RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS",
)  # fmt: skip
_BLOCK, _CARD = 2880, 80
_MOST_AXES = 999  # of the standard
_SIZES = ("SIMPLE", "BITPIX", "NAXIS", "PCOUNT", "GCOUNT", "GROUPS", "TFIELDS")
_MOST_EXPANSION = 1032  # of deflate
_HEAP_ITEMS = {"B": 1, "I": 2, "J": 4, "E": 4, "D": 8, "K": 8}


class _Stored:
    """An extension's data: slices are read from the disk and scaled.

    Astropy's own scaling would give undefined integers as numbers where BLANK is 0 or the values
    are unsigned.

    Attributes:
        shape: Of the array.
        dtype: Of its values as scaled.
    """

    def __init__(self, extension: Any, tiles: Any = None):
        """Reads the header.

        Args:
            extension: As an image, not scaled.
            tiles: The table that the extension is in the file, if it is compressed tile by tile.
        """
        header = extension.header
        bits = int(header["BITPIX"])
        self._section = extension.section
        self.shape: tuple[int, ...] = tuple(extension.shape)
        self._scale, self._zero = float(header.get("BSCALE", 1)), header.get("BZERO", 0)
        self._blank = header.get("BLANK") if bits > 0 else None
        if tiles and bits > 0:
            self._blank = tiles.header.get("ZBLANK", self._blank)
        self.dtype = np.dtype(_TYPES[bits])
        self._swaps_sign = self._scale == 1 and self._zero == _SIGN_OFFSETS.get(bits)
        self._is_scaled = (self._scale, self._zero) != (1, 0) and not self._swaps_sign
        if self._swaps_sign:
            kind = "u" if self.dtype.kind == "i" else "i"
            self.dtype = np.dtype(f"{kind}{self.dtype.itemsize}")
        if bits > 0 and self._is_scaled:
            self.dtype = np.dtype(np.float64)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Scaled values; undefined ones are NaN, or masked where there is a natural range."""
        stored = np.asarray(self._section[index])
        stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        values = self._scaled(stored)
        if self._blank is not None:
            undefined = stored == self._blank
            if undefined.any() and values.dtype.kind == "u":
                return np.ma.MaskedArray(values, undefined)
            if undefined.any():
                values = values.astype(np.float64)
                values[undefined] = np.nan
        return values

    def _scaled(self, stored: np.ndarray) -> np.ndarray:
        if self._swaps_sign:
            unsigned = np.dtype(f"u{stored.itemsize}")
            top_bit = unsigned.type(1 << (8 * stored.itemsize - 1))
            swapped = stored.view(unsigned) ^ top_bit
            return swapped.view(np.int8) if stored.dtype == np.uint8 else swapped
        if self._is_scaled:
            kind = self.dtype.type
            with np.errstate(over="ignore", invalid="ignore"):
                return stored.astype(kind) * kind(self._scale) + kind(self._zero)
        return stored


@contextmanager
def open_array(source: FileSource, reading: Reading, limits: ReadLimits) -> Iterator[_Stored]:
    """The array of the named or numbered extension, or of the first that holds an image."""
    try:
        from astropy.io import fits
        from astropy.utils.exceptions import AstropyWarning
    except ImportError:
        raise UserError("FITS needs astropy: pip install 'simclr-tf[science]'") from None
    with (
        opened(source) as file,
        damage_refused("FITS cannot be read"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", AstropyWarning)
        start = file.read(len(START))
        file.seek(0)
        packed = unpacked(file, start, limits)
        stream = packed or file
        _check_headers(stream, reading.array)
        stream.seek(0)
        extensions = fits.open(stream, do_not_scale_image_data=True)
        number = _choose(extensions, reading.array)
        extension = extensions[number]
        end = _end(extension)
        tiles = None
        if isinstance(extension, fits.CompImageHDU):
            stream.seek(0)
            tiles = fits.open(stream, disable_image_compression=True)[number]
            end = _end(tiles)
        if not packed and end > file_size(file):
            raise UserError("truncated")  # Astropy would give what is missing as zeros.
        if tiles:
            _check_tiles(tiles, extension, stream, limits)
        yield _Stored(extension, tiles)
        if packed:
            read_to_end(packed)
            if packed.tell() < end:
                raise UserError("truncated")


def _check_headers(stream: BinaryIO, wanted: str) -> None:
    """Refuses headers on which astropy would not end, up to the extension that is meant.

    Astropy goes over as many axes as a header says, back in the file where a size is negative, and
    on for ever in a packed file that does not claim to keep to the standard.
    """
    place = number = 0
    while header := _header(stream, place):
        axes = [header.get(f"NAXIS{axis}", 0) for axis in range(1, header.get("NAXIS", 0) + 1)]
        is_groups = bool(axes) and axes[0] == 0 and "GROUPS" in header
        values = math.prod(axes[1:] if is_groups else axes) if axes else 0
        values = (values + header.get("PCOUNT", 0)) * header.get("GCOUNT", 1)
        size = abs(header.get("BITPIX", 8)) // 8 * values
        if min(axes, default=0) < 0 or size < 0:
            raise UserError("FITS cannot be read (an axis of negative length)")
        may_be_image = len(axes) >= 2 and not is_groups
        if str(number) == wanted or (not wanted and may_be_image and "TFIELDS" not in header):
            return
        place += (header["length"] + size + _BLOCK - 1) // _BLOCK * _BLOCK
        number += 1


def _header(stream: BinaryIO, place: int) -> dict[str, int]:
    """The sizes that a header says, its own `length` among them; empty at the end of the file."""
    stream.seek(place)
    found: dict[str, int] = {}
    length = 0
    while block := stream.read(_BLOCK):
        length += len(block)
        for start in range(0, len(block), _CARD):
            name = block[start : start + 8].rstrip().decode("ascii", "replace")
            if name == "END":
                return {**found, "length": length}
            if not name.startswith(_SIZES) or block[start + 8 : start + 9] != b"=":
                continue
            value = block[start + 9 : start + _CARD].partition(b"/")[0].strip()
            try:
                found.setdefault(name, 1 if value == b"T" else int(value))
            except ValueError:
                raise UserError(f"FITS cannot be read (damaged header: {name})") from None
            if name == "NAXIS" and found[name] > _MOST_AXES:
                raise UserError(f"FITS cannot be read ({found[name]} axes)")
    return {}


def _choose(extensions: Any, wanted: str) -> int:
    """The number of the extension that is wanted."""
    if wanted:
        try:
            number = int(wanted) if wanted.isdigit() else extensions.index_of(wanted)
            chosen = extensions[number]
        except (KeyError, IndexError):
            names = ", ".join(f"{n} {e.name!r}" for n, e in enumerate(extensions))
            raise UserError(f"FITS has no extension {wanted!r} (it has {names})") from None
        if not _holds_image(chosen):
            raise UserError(f"FITS extension {wanted!r} holds no image")
        return number
    for number, extension in enumerate(extensions):
        if _holds_image(extension):
            return number
    raise UserError("FITS holds no image")


def _holds_image(extension: Any) -> bool:
    return extension.is_image and len(extension.shape) >= 2 and not extension.header.get("GROUPS")


def _check_tiles(table: Any, image: Any, stream: BinaryIO, limits: ReadLimits) -> None:
    """Refuses a tile-compressed extension that does not hold what it declares.

    Args:
        table: The extension as the table that it is in the file.
        image: The extension as an image.
        stream: The file, unpacked.
        limits: Bounds on the size to which a file may unpack.
    """
    header, columns = table.header, table.columns
    compression = header["ZCMPTYPE"]
    if compression not in _COMPRESSIONS:
        raise UserError(f"FITS compressed by {compression!r}, which is not known: funpack it")
    if "NULL_PIXEL_MASK" in columns.names or ("ZSCALE" in header and "ZSCALE" not in columns.names):
        raise UserError("FITS compressed in a way that astropy does not read: funpack it")
    if any(side < 1 for side in (*image.shape, *image.tile_shape)):
        raise UserError("FITS cannot be read (a tile without pixels)")
    tiles = math.prod(-(-n // tile) for n, tile in zip(image.shape, image.tile_shape, strict=True))
    width, rows, heap_size = header["NAXIS1"], header["NAXIS2"], header["PCOUNT"]
    if rows != tiles or columns.dtype.itemsize != width:
        raise UserError(f"FITS cannot be read ({rows} tiles where {tiles} make the image)")
    place = table.fileinfo()["datLoc"]
    heap = header.get("THEAP", width * rows)
    stream.seek(place)
    places = np.frombuffer(exactly(stream, width * rows), columns.dtype.newbyteorder(">"))
    for column in columns:
        if column.format.lstrip("1")[:1] not in ("P", "Q"):
            continue
        counts, offsets = places[column.name].astype(np.int64).T
        size = _HEAP_ITEMS.get(column.format.lstrip("1")[1:2], 8)
        if (offsets < 0).any() or (counts < 0).any() or (offsets + counts * size > heap_size).any():
            raise UserError("FITS cannot be read (a tile lies outside of the file)")
        if heap_size * _MOST_EXPANSION > limits.max_bytes and (
            column.name == "GZIP_COMPRESSED_DATA" or compression.startswith("GZIP")
        ):
            most = math.prod(image.tile_shape) * 8
            for offset, count in zip(offsets.tolist(), (counts * size).tolist(), strict=True):
                stream.seek(place + heap + offset)
                unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
                if len(unpacker.decompress(exactly(stream, count), most + 1)) > most:
                    raise UserError("FITS cannot be read (a tile unpacks to more than its pixels)")


def _end(extension: Any) -> int:
    """Bytes from the beginning of the file to the end of an extension's data."""
    place = extension.fileinfo()
    if place is None:
        raise UserError("FITS cannot be read (an extension without its place)")
    return int(place["datLoc"] + extension.size)
