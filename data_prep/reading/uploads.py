"""Reading one uploaded image for a service."""

import io
from dataclasses import dataclass

import numpy as np

from data_prep.errors import damage_refused
from data_prep.reading.images import read_image
from data_prep.reading.limits import ReadLimits
from data_prep.reading.spec import parse_reading
from data_prep.reading.thumbnails import small_jpeg
from data_prep.reading.training_files import TrainingFiles, of_one, stored_bits


@dataclass(frozen=True)
class UploadOptions:
    """Options for reading uploads.

    Attributes:
        channels: Wanted number of channels, 1 or 3.
        reading: What is declared of them, as in a manifest.
        limits: Largest size of an image.
    """

    channels: int
    reading: str
    limits: ReadLimits


@dataclass(frozen=True)
class Upload:
    """An image that was read.

    Attributes:
        pixels: [H, W, C] as `images.read_image` gives them, in the wanted channels.
        facts: Depth, channels and range of values of the file.
        thumbnail: A small JPEG; empty unless asked for.
    """

    pixels: np.ndarray
    facts: TrainingFiles
    thumbnail: bytes = b""


def read_upload(content: bytes, options: UploadOptions, *, thumbnail: bool = False) -> Upload:
    """Reads the bytes of an image file.

    Args:
        content: The file.
        options: How it is read.
        thumbnail: Make one.

    Raises:
        UserError: They are no image, or one that is too large, which its header tells.
    """
    declared, limits = parse_reading(options.reading), options.limits
    stored = read_image(content, None, options.reading, limits=limits)
    pixels = stored
    if stored.shape[-1] != options.channels:
        pixels = read_image(content, options.channels, options.reading, limits=limits)
    with damage_refused("cannot be decoded"):
        facts = of_one(stored_bits(io.BytesIO(content), content[:64], declared), stored)
        return Upload(pixels, facts, small_jpeg(stored) if thumbnail else b"")
