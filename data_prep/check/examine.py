"""Every file read whole, once: what its header says, its hashes, its margins, its brightness."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.identity import shares_file
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.near_duplicates import (
    DRAFT_SIDE,
    Looks,
    grey_thumbnail,
    grey_values,
    hash_of_part,
    is_plain_jpeg,
    jpeg_luma,
    perceptual_hash,
    room_for_looks,
    shrink,
)
from data_prep.parallel import in_parallel
from data_prep.reading.formats.hdf5 import after_user_block
from data_prep.reading.headers import read_header
from data_prep.reading.images import read_image
from data_prep.storage import file_sha256

Progress = Callable[[int, int], None]

# Values this close, of 255, count as the same colour: JPEG does not keep a margin constant.
_SAME = 8
# Beside the edge of a picture JPEG rings more, within the block of 8 pixels that holds the edge.
_RINGING, _RINGING_PIXELS = 32, 8

_STARTS = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"II": "TIFF",
    b"MM": "TIFF",
    b"SIMPLE": "FITS",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "NPY",
    b"PK\x03\x04": "NPZ",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
}
_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WebP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "FITS": (".fits", ".fit", ".fts", ".fz"),
    "HDF5": (".h5", ".hdf5"),
    "NPY": (".npy",),
    "NPZ": (".npz",),
    "gzip": (".gz",),
    "bzip2": (".bz2",),
}


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of one file after reading all of it.

    Attributes:
        problem: Why it cannot be used; empty if it can, and then the rest is known.
        format: By its first bytes: JPEG, PNG, ...; `raw` for anything else.
        misnamed: The ending says another format.
        size: Bytes.
        height: Pixels.
        width: Pixels.
        channels: 1, 3 or bands.
        bits: A channel.
        quality: Sum of a JPEG's quantisation table, less = better; 0 for others.
        left, top, right, bottom: Margins of one colour, pixels.
        margin: Brightness of that colour, 0 to 1.
        low, median, high: Darkest, median and brightest value, the images' range being 0 to 1.
        orientation: As the file notes it (EXIF), 1 to 8; 1 = upright.
    """

    problem: str = ""
    format: str = ""
    misnamed: bool = False
    size: int = 0
    height: int = 0
    width: int = 0
    channels: int = 0
    bits: int = 0
    quality: int = 0
    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0
    margin: float = 0.0
    low: float = 0.0
    median: float = 0.0
    high: float = 0.0
    orientation: int = 1

    @property
    def constant(self) -> bool:
        """Whether all pixels are (nearly) the same."""
        return (self.high - self.low) * 255 <= 2

    @property
    def inside(self) -> float:
        """Share of the picture inside its margins."""
        rows, columns = self.height - self.top - self.bottom, self.width - self.left - self.right
        return max(0, rows) * max(0, columns) / max(1, self.height * self.width)


FACTS = tuple(field.name for field in fields(FileFacts))


@dataclass(frozen=True, eq=False)
class Examination:
    """A whole set, examined.

    Attributes:
        manifest: The images, unreadable ones too.
        facts: Of each.
        content: Equal for images of equal content: the hash of the bytes of a file, or of the
            values of a part of one; empty for what cannot be read or is empty, and for parts of a
            single value.
        looks: Of each; zeros for unreadable ones.
    """

    manifest: Manifest
    facts: tuple[FileFacts, ...]
    content: tuple[str, ...]
    looks: Looks

    def usable(self) -> np.ndarray:
        """Positions of the readable images, int64 [m]."""
        return np.array([i for i, fact in enumerate(self.facts) if not fact.problem], np.int64)


def examine(manifest: Manifest, progress: Progress = lambda done, total: None) -> Examination:
    """Reads every file with all processors.

    Args:
        manifest: The images; they need not be readable.
        progress: Called with (files done, files in all).

    Returns:
        What was found; the same however many processors there are.
    """
    jobs = [
        (file, record.reading, record.tile)
        for record, file in zip(manifest.records, manifest.files(), strict=True)
    ]
    looks = room_for_looks(len(jobs))
    facts: list[FileFacts] = []
    hashes: list[str] = []
    for fact, digest, thumbnail, look in in_parallel(_examine_files, jobs):
        looks.thumbnails[len(facts)] = thumbnail
        looks.hashes[len(facts)] = look
        facts.append(fact)
        hashes.append(digest)
        progress(len(facts), len(jobs))
    return Examination(manifest, tuple(facts), tuple(hashes), looks)


_Row = tuple[FileFacts, str, np.ndarray | int, int]


def _examine_files(jobs: Sequence[tuple[str, str, str]]) -> list[_Row]:
    return [_examine_file(*job) for job in jobs]


def _examine_file(file: str, reading: str, tile: str) -> _Row:
    part, digest = shares_file(reading, tile), ""
    try:
        with open(file, "rb") as stream:
            empty = not stream.read(1)
        if not (part or empty):
            digest = file_sha256(file)
    except OSError as error:
        return FileFacts(problem=error.strerror or str(error)), "", 0, 0
    try:
        facts, thumbnail = _facts(file, reading, tile)
        if part:
            digest = hash_of_part(file, reading, tile)
    except UserError as error:
        problem = str(error).removeprefix(f"{file}: ")
        return replace(_named(file), problem=problem), digest, 0, 0
    except Exception as error:
        # The libraries that decode raise almost anything on damaged bytes, and one file must not
        # end the check of all.
        said = " ".join(str(error).split()) or type(error).__name__
        return replace(_named(file), problem=f"cannot be decoded ({said})"), digest, 0, 0
    return facts, digest, thumbnail, perceptual_hash(thumbnail)


def _named(file: str) -> FileFacts:
    """Size and format, and whether the file's name agrees with it."""
    with open(file, "rb") as stream:
        start = stream.read(8)
    kind = next((name for first, name in _STARTS.items() if start.startswith(first)), "")
    if not kind:
        kind = "HDF5" if after_user_block(file) else "raw"
    ending = os.path.splitext(file)[1].lower()
    endings = [e for known in _ENDINGS.values() for e in known]
    misnamed = ending in endings and kind in _ENDINGS and ending not in _ENDINGS[kind]
    return FileFacts(format=kind, misnamed=misnamed, size=os.path.getsize(file))


def _facts(file: str, reading: str, tile: str) -> tuple[FileFacts, np.ndarray]:
    """Everything of a readable file, and its thumbnail."""
    named, header = _named(file), read_header(file, reading, tile)
    quality = 0
    with open(file, "rb") as stream:
        plain_jpeg = is_plain_jpeg(stream, header.decoder)
        if plain_jpeg:
            whole, table = jpeg_luma(stream, header.decoder)
            quality = sum(table)
    if plain_jpeg:
        # What a large JPEG looks like is decided from a faster decoding, as everywhere else.
        drafted = min(whole.size) >= 2 * DRAFT_SIDE
        thumbnail = grey_thumbnail(file, reading) if drafted else shrink(whole)
        grey = np.asarray(whole)
        counts = np.bincount(grey.ravel(), minlength=256).cumsum()
        median = int(np.searchsorted(counts, (counts[-1] + 1) // 2)) / 255
    else:
        pixels = read_image(file, reading=reading, tile=tile)
        scale = 255 if pixels.dtype == np.uint8 else 1
        brightness = grey_values(pixels) / np.float32(scale)
        thumbnail = shrink(Image.fromarray(brightness, mode="F"))
        grey = brightness * 255
        median = float(np.median(brightness))
    top, bottom, left, right = _margins(grey, jpeg=named.format == "JPEG")
    facts = replace(
        named, height=header.height, width=header.width, channels=header.channels,
        bits=header.bits, quality=quality, left=left, top=top, right=right, bottom=bottom,
        margin=float(grey[0, 0]) / 255, low=float(grey.min()) / 255, median=median,
        high=float(grey.max()) / 255, orientation=header.orientation,
    )  # fmt: skip
    return facts, thumbnail


def _margins(grey: np.ndarray, *, jpeg: bool = False) -> tuple[int, int, int, int]:
    """Rows above and below, columns left and right, that have the colour of the first corner.

    Args:
        grey: [H, W], 0 to 255.
        jpeg: Look through the ringing beside the edge.

    Returns:
        Zeros if the corners differ, or if there is nothing but that colour.
    """
    edges = [grey[0], grey[-1], grey[:, 0], grey[:, -1]]
    if np.ptp(grey[[0, 0, -1, -1], [0, -1, 0, -1]].astype(np.float32)) > _SAME or all(
        np.ptp(edge.astype(np.float32)) > 2 * _SAME for edge in edges
    ):
        return 0, 0, 0, 0
    strict = _margins_within(grey, _SAME)
    if not jpeg or not any(strict):
        return strict
    beyond = _margins_within(grey, _RINGING)
    top, bottom, left, right = (
        min(wide, narrow + _RINGING_PIXELS) if narrow else 0
        for narrow, wide in zip(strict, beyond, strict=True)
    )
    return top, bottom, left, right


def _margins_within(grey: np.ndarray, same: int) -> tuple[int, int, int, int]:
    first = float(grey[0, 0])
    other = (grey > first + same) | (grey < first - same)
    rows, columns = np.flatnonzero(other.any(axis=1)), np.flatnonzero(other.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    height, width = grey.shape
    return (
        int(rows[0]), int(height - 1 - rows[-1]), int(columns[0]), int(width - 1 - columns[-1])
    )  # fmt: skip
