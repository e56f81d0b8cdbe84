"""JPEG files: by libjpeg through Pillow, lossless and 12-bit ones through imagecodecs."""

import os
import struct
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from data_prep.errors import UserError
from data_prep.formats.picture import Decoder, Picture, exif_orientation, value_bits

START = b"\xff\xd8"
_END = b"\xff\xd9"
_TAIL = 64
_MOST_STRAY = 2**16  # bytes between two segments
# Start-of-frame markers; C4, C8 and CC in the same range mean other things.
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset(range(0xD0, 0xD8)) | {0x01}
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
    stream.seek(2)
    orientation, jfif, adobe = 1, False, -1
    while True:
        marker, length = _next_segment(stream)
        if marker in _SOF:
            break
        content = 0
        if marker == 0xE1:
            start = stream.read(min(6, length))
            content = len(start)
            if start.startswith(_EXIF):
                block = stream.read(length - content)
                content += len(block)
                orientation = exif_orientation(block)
        elif marker == 0xE0:
            jfif = True
        elif marker == 0xEE and length >= 12:
            start = stream.read(12)
            content = len(start)
            adobe = start[11] if start.startswith(b"Adobe") else adobe
        if length > content:
            stream.seek(length - content, os.SEEK_CUR)
    frame = stream.read(length)
    bits, height, width, components = struct.unpack_from(">BHHB", frame)
    _check_kind(marker, bits, height, components)
    in_graph = marker in _HUFFMAN and bits == 8 and components != 4
    if in_graph and components == 3:
        # TensorFlow would take the red of stored RGB for the luma.
        in_graph = not _stores_rgb(jfif, adobe, bytes(frame[6:15:3]))
    decoder = Decoder.RASTER if in_graph else Decoder.PYTHON
    channels = 1 if components == 1 else 3
    return Picture(height, width, channels, value_bits(bits), decoder, orientation)


def _next_segment(stream: BinaryIO) -> tuple[int, int]:
    """Marker of the next segment, and the length of what follows the length."""
    for _ in range(_MOST_STRAY):
        head = stream.read(4)
        if len(head) == 4 and head[0] == 0xFF and 0xC0 <= head[1] <= 0xFE:
            marker = head[1]
            if marker in (0xD9, 0xDA):
                raise EOFError
            if marker not in _BARE_MARKERS and marker != 0xD8:
                return marker, max(0, (head[2] << 8 | head[3]) - 2)
        # Fill bytes, stray bytes or a marker without a length: go on a byte later.
        if len(head) < 4:
            raise EOFError
        stream.seek(-3 if head[0] != 0xFF or head[1] == 0xFF else -2, os.SEEK_CUR)
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
    """Whether red, green and blue are stored instead of luma and colour, as libjpeg decides."""
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
            grey = image.mode == "L"
            pixels = np.asarray(image if grey else image.convert("RGB"))
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
