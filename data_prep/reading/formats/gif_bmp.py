"""GIF and BMP files, by Pillow; of an animated GIF the first frame."""

import struct
from typing import BinaryIO

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile

from data_prep.errors import UserError
from data_prep.reading.formats.picture import Decoder, Picture
from data_prep.reading.formats.png import palette_is_gray

GIF_STARTS = (b"GIF87a", b"GIF89a")
BMP_START = b"BM"
_GRAY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I", "F")


def read_gif_facts(stream: BinaryIO, size: int) -> Picture:
    """The facts of the first frame on its canvas.

    Raises:
        UserError: Truncated.
    """
    stream.seek(0)
    with GifImageFile(stream) as image:
        width, height = image.size
        channels = 1 if _is_gray(image) else 3
        stream.seek(max(0, size - 64))
        if stream.read().rstrip(b"\x00")[-1:] != b";":
            raise UserError("truncated")
    return Picture(height, width, channels, 8, Decoder.PYTHON)


def _is_gray(image: GifImageFile | BmpImageFile) -> bool:
    palette = image.getpalette() if image.mode == "P" else None
    return image.mode in _GRAY_MODES or bool(palette and palette_is_gray(bytes(palette)))


def read_bmp_facts(stream: BinaryIO, size: int, start: bytes) -> Picture:
    """The facts of a bitmap.

    Args:
        stream: The file.
        size: Its bytes.
        start: Its first bytes, 32 or more.

    Raises:
        UserError: Truncated.
    """
    offset, header_size = struct.unpack_from("<II", start, 10)
    stream.seek(0)
    with BmpImageFile(stream) as image:
        (width, height), mode = image.size, image.mode
        channels = 1 if _is_gray(image) else 3
    bits, compression = struct.unpack_from("<HI", start, 28)
    plain = header_size >= 40 and not compression
    if plain and size < offset + (width * bits + 31) // 32 * 4 * height:
        raise UserError("truncated")
    in_graph = plain and (bits == 24 or (bits == 8 and mode == "L"))
    return Picture(height, width, channels, 8, Decoder.BMP if in_graph else Decoder.PYTHON)


def read_pixels(stream: BinaryIO, channels: int) -> np.ndarray:
    """Pixels without alpha, uint8 [H, W, channels].

    Args:
        stream: The file.
        channels: As the facts say.

    Raises:
        UserError: The file cannot be decoded.
    """
    stream.seek(0)
    kind = BmpImageFile if stream.read(2) == BMP_START else GifImageFile
    stream.seek(0)
    try:
        with kind(stream) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        if getattr(error, "errno", None):
            raise
        raise UserError(f"cannot be decoded ({error})") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]
