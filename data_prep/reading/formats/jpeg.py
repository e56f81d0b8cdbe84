"""JPEG files: by libjpeg through Pillow, lossless and 12-bit ones through imagecodecs."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from data_prep.errors import UserError
from data_prep.reading.formats.picture import Decoder, Picture, exif_orientation, value_bits

START = b"\xff\xd8"
_END = b"\xff\xd9"
_TAIL = 64
_MOST_STRAY = 2**16  # bytes between segments
_WINDOW = 4096
# Start-of-frame markers; C4, C8 and CC in the same range mean other things.
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset(range(0xD0, 0xD9)) | {0x01}
_NO_MARKERS = (0x00, 0xFF)
_READ = _SOF | {0xE0, 0xE1, 0xEE}
_HUFFMAN = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: what TensorFlow decodes, too
_ARITHMETIC = (0xC9, 0xCA)
_LOSSLESS = 0xC3
_EXIF = b"Exif\x00"


def read_facts(stream: BinaryIO, size: int) -> Picture:
    """The facts from the markers before the image data.

    Args:
        stream: The file.
        size: Its bytes.

    Raises:
        UserError: A kind of JPEG that cannot be read.
        EOFError, struct.error: Damaged or truncated before the image data.
    """
    orientation, jfif, adobe = 1, False, -1
    for marker, content in _segments(stream):
        if marker in _SOF:
            break
        if marker == 0xE1 and content.startswith(_EXIF):
            orientation = exif_orientation(content[6:])
        elif marker == 0xE0:
            jfif = True
        elif marker == 0xEE and content.startswith(b"Adobe"):
            adobe = content[11]
    bits, height, width, components = struct.unpack_from(">BHHB", content)
    _check_kind(marker, bits, height, components)
    in_graph = marker in _HUFFMAN and bits == 8 and components != 4
    if in_graph and components == 3:
        # TensorFlow would take the red of stored RGB for the luma.
        in_graph = not _stores_rgb(jfif, adobe, content[6:15:3])
    decoder = Decoder.RASTER if in_graph else Decoder.PYTHON
    channels = 1 if components == 1 else 3
    return Picture(height, width, channels, value_bits(bits), decoder, orientation)


def _segments(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Marker and content of every segment before the image data; ends with EOFError."""
    position = base = 2
    window = b""
    stray = 0
    while stray < _MOST_STRAY:
        at = position - base
        if at + 4 > len(window):
            stream.seek(position)
            window, base, at = stream.read(_WINDOW), position, 0
            if len(window) < 4:
                break
        first, marker = window[at], window[at + 1]
        if first != 0xFF or marker in _NO_MARKERS:  # fill bytes, or what does not belong here
            position += 1
            stray += 1
            continue
        if marker in _BARE_MARKERS:
            position += 2
            continue
        if marker in (0xD9, 0xDA):
            break
        length = window[at + 2] << 8 | window[at + 3]
        position += 2 + max(2, length)
        if marker not in _READ:
            continue
        content = window[at + 4 : at + 2 + length]
        if at + 2 + length > len(window):
            stream.seek(base + at + 4)
            content = stream.read(length - 2)
        yield marker, content
    raise EOFError


def _check_kind(marker: int, bits: int, height: int, components: int) -> None:
    known = (*_HUFFMAN, *_ARITHMETIC, _LOSSLESS)
    deep = bits == 12 or (marker == _LOSSLESS and 8 < bits <= 16)
    if marker not in known or components not in (1, 3, 4) or not (bits == 8 or deep):
        kind = {0xC3: "lossless ", 0xC9: "arithmetic "}.get(marker, "")
        raise UserError(
            f"{kind}JPEG of {bits} bits and {components} components (marker {marker:02X}) is not"
            " supported: save it as PNG or TIFF"
        )
    if bits != 8 and components == 4:
        raise UserError(f"CMYK JPEG of {bits} bits is not supported: save it as PNG or TIFF")
    if not height:
        raise UserError("JPEG that does not say its height is not supported: save it anew")


def _stores_rgb(jfif: bool, adobe: int, names: bytes) -> bool:
    """Returns True if RGB is stored instead of luma and colour, decided as libjpeg does."""
    if jfif:
        return False
    return adobe == 0 if adobe >= 0 else names == b"RGB"


def check_whole(stream: BinaryIO, size: int) -> None:
    """Raises UserError if the file is cut off.

    Without an end marker near the end it is truncated, or followed by other data: decoding tells.
    """
    stream.seek(max(0, size - _TAIL))
    if _END not in stream.read():
        stream.seek(0)
        try:
            with JpegImageFile(stream) as image:
                image.load()
        except (OSError, SyntaxError):
            raise UserError("truncated") from None


def read_pixels(stream: BinaryIO, luma: bool = False) -> np.ndarray:
    """Pixels as stored, [H, W, C]: uint8, or uint16 for more than 8 bits.

    Args:
        stream: The file.
        luma: Only the luma of a colour image as it is stored, which is what TensorFlow gives for
            grey.

    Raises:
        UserError: The file cannot be decoded.
    """
    stream.seek(0)
    try:
        with open_8bit(stream) as image:
            if luma and image.mode == "RGB":
                image.draft("L", image.size)
            gray = image.mode == "L"
            pixels = np.asarray(image if gray else image.convert("RGB"))
    except SyntaxError:  # Pillow knows no JPEG of more bits, and no lossless one.
        pixels = _decode(stream)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None):
            raise
        raise UserError(f"cannot be decoded ({error})") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def open_8bit(stream: BinaryIO) -> Image.Image:
    """A JPEG of 8 bits, not yet decoded; whatever its size, unlike `Image.open`."""
    image: Image.Image = JpegImageFile(stream)
    return image


def _decode(stream: BinaryIO) -> np.ndarray:
    stream.seek(0)
    try:
        pixels: np.ndarray = imagecodecs.jpeg_decode(stream.read())
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot be decoded ({error})") from None
    return pixels
