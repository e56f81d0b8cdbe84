"""Duplicates among images: the same byte for byte or value for value, or alike in looks.

Two pictures are near duplicates if their perceptual hashes (pHash: the signs of the lowest
frequencies, by the library imagehash) differ in few bits and their thumbnails correlate. The hash
alone would not do for scientific images: on dark diffraction patterns, plots with a white margin
or radio sources in an empty sky the other hashes of that library (difference, wavelet) call up to
all pairs equal, and pHash many. Where a thumbnail holds too little to tell two pictures apart, such
as a point source, only an all but perfect correlation counts.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from tempfile import TemporaryFile, gettempdir
from typing import BinaryIO

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_prep.errors import UserError
from data_prep.manifest.identity import shares_file
from data_prep.manifest.manifest import Manifest
from data_prep.parallel import in_parallel
from data_prep.reading.formats import jpeg
from data_prep.reading.formats.arrays import holds_array, read_array
from data_prep.reading.formats.picture import TURNED, turn_upright
from data_prep.reading.headers import Decoder, read_header
from data_prep.reading.images import read_image, read_stored, with_channels
from data_prep.reading.spec import parse_reading
from data_prep.reading.tiles import TileBox, check_inside, parse_box
from data_prep.storage import file_sha256, naming_full_disk

Progress = Callable[[int, int], None]

SIDE = 64
DRAFT_SIDE = 4 * SIDE
NEAR_DISTANCE = 8
NEAR_CORRELATION = 0.98

_POOR_CORRELATION = 0.9995
# Below this share of pixels that carry the contrast, a thumbnail is too poor to tell by.
_POOR_DETAIL = 0.05
# Grey levels by which a common margin may vary, and the share of the picture it must leave.
_SAME, _LEAST_INSIDE = 16, 0.25
_BLOCK = 2048
_ROWS = 128  # times all others: the largest table of the comparison


def _silent(done: int, total: int) -> None:
    """No progress."""


def file_hashes(files: Sequence[str], progress: Progress = _silent) -> list[str]:
    """SHA-256 of the bytes of every file, in hexadecimal, in order.

    Args:
        files: File names.
        progress: Called with (files done, files in all).

    Raises:
        OSError: A file cannot be read.
    """
    found = []
    for digest in in_parallel(_hashes_of_files, files, processes=False):
        found.append(digest)
        progress(len(found), len(files))
    return found


def _hashes_of_files(files: Sequence[str]) -> list[str]:
    return [file_sha256(file) for file in files]


def part_hashes(
    manifest: Manifest, progress: Progress = _silent, *, skip_unreadable: bool = False
) -> list[str]:
    """Hashes of the stored values of the images that are parts of files, in order.

    Pages, images of a stack, arrays and tiles cannot be told by the hash of their file.

    Args:
        manifest: The images.
        progress: Called with (parts done, parts in all).
        skip_unreadable: Give an empty text for a part that cannot be read instead of raising.

    Returns:
        Hexadecimal texts; empty for images that are whole files, and for parts of one value, such
        as an empty margin: they are alike without being copies.

    Raises:
        UserError: A part cannot be read.
    """
    records, files = manifest.records, manifest.files()
    parts = [i for i, r in enumerate(records) if shares_file(r.reading, r.tile)]
    jobs = [(files[i], records[i].reading, records[i].tile) for i in parts]
    found = [""] * len(records)
    work = partial(_hashes_of_parts, skip_unreadable)
    # Threads, for training ends with this, too, in scripts that new processes would run again.
    for done, digest in enumerate(in_parallel(work, jobs, processes=False)):
        found[parts[done]] = digest
        progress(done + 1, len(jobs))
    return found


def _hashes_of_parts(skip_unreadable: bool, jobs: Sequence[tuple[str, str, str]]) -> list[str]:
    found = []
    for job in jobs:
        try:
            found.append(hash_of_part(*job))
        except UserError:
            if not skip_unreadable:
                raise
            found.append("")
    return found


def hash_of_part(file: str, reading: str = "", tile: str = "") -> str:
    """Hash of the stored values of one image; see `part_hashes`."""
    values = _stored_tile(file, reading, parse_box(tile)) if tile else read_stored(file, reading)
    if (values == values.flat[0]).all():
        return ""
    digest = hashlib.sha256(f"{values.dtype.str} {values.shape}".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _stored_tile(file: str, reading: str, box: TileBox) -> np.ndarray:
    """Stored values of a tile; of an array no more is read, a picture is kept for the next one."""
    declared = parse_reading(reading)
    try:
        with open(file, "rb") as stream:
            start = stream.read(64)
        status = os.stat(file)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    # A rule changes no stored value, so that all rules share the picture.
    bare = str(replace(declared, intensity=None, nan=""))
    try:
        if holds_array(start, file, declared):
            return read_array(file, declared, box)
        picture = _whole_picture(file, (status.st_mtime_ns, status.st_size), bare)
        check_inside(box, *picture.shape[:2])
    except UserError as error:
        raise UserError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from None
    return picture[box.y : box.y + box.height, box.x : box.x + box.width]


@lru_cache(maxsize=2)
def _whole_picture(file: str, stamp: tuple[int, int], reading: str) -> np.ndarray:
    return read_stored(file, reading)


@dataclass(frozen=True, eq=False)
class Looks:
    """Looks of n pictures, by which near duplicates are found.

    Attributes:
        hashes: Perceptual hashes, uint64 [n].
        thumbnails: Grey, each stretched over 0 to 255, uint8 [n, 64, 64].
    """

    hashes: np.ndarray
    thumbnails: np.ndarray


def looks_of(manifest: Manifest, progress: Progress = _silent) -> Looks:
    """The looks of every image of a manifest, with all processors.

    Args:
        manifest: The images; what it says of tiles and readings is heeded.
        progress: Called with (images done, images in all).

    Raises:
        UserError: An image cannot be read.
    """
    jobs = [
        (file, record.reading, record.tile)
        for record, file in zip(manifest.records, manifest.files(), strict=True)
    ]
    looks = room_for_looks(len(jobs))
    for i, (thumbnail, look) in enumerate(in_parallel(_looks_of_files, jobs)):
        looks.thumbnails[i] = thumbnail
        looks.hashes[i] = look
        progress(i + 1, len(jobs))
    return looks


def _looks_of_files(jobs: Sequence[tuple[str, str, str]]) -> list[tuple[np.ndarray, int]]:
    thumbnails = [gray_thumbnail(*job) for job in jobs]
    return [(thumbnail, perceptual_hash(thumbnail)) for thumbnail in thumbnails]


def room_for_looks(number: int) -> Looks:
    """Looks to be filled in; their thumbnails lie in a temporary file, so memory stays flat."""
    size = number * SIDE * SIDE
    with naming_full_disk(gettempdir()), TemporaryFile() as file:
        if size and hasattr(os, "posix_fallocate"):
            # Writing to a mapped page that the disk has no room for would kill the process.
            os.posix_fallocate(file.fileno(), 0, size)
        thumbnails = np.memmap(file, np.uint8, "w+", shape=(number, SIDE, SIDE))
    return Looks(np.zeros(number, np.uint64), thumbnails)


def gray_thumbnail(file: str, reading: str = "", tile: str = "") -> np.ndarray:
    """A picture as a small grey square, its aspect not kept, uint8 [64, 64].

    The values are stretched from the darkest to the brightest.

    Args:
        file: File name.
        reading: See `Record`.
        tile: See `Record`.
    """
    decoder = read_header(file, reading, tile).decoder
    with open(file, "rb") as stream:
        if is_plain_jpeg(stream, decoder):
            # Decodes it at a fraction of its size, several times as fast.
            gray, _ = jpeg_luma(stream, decoder, DRAFT_SIDE)
            return shrink(gray)
    return shrink(Image.fromarray(gray_values(read_image(file, reading=reading, tile=tile)), "F"))


def is_plain_jpeg(stream: BinaryIO, decoder: Decoder) -> bool:
    """Returns True for a JPEG of 8 bits of which nothing is declared but its orientation.

    Args:
        stream: The file, at its beginning.
        decoder: As its header says.
    """
    if decoder != Decoder.RASTER and decoder not in TURNED:
        return False
    start = stream.read(len(jpeg.START))
    stream.seek(0)
    return start == jpeg.START


def jpeg_luma(
    stream: BinaryIO, decoder: Decoder, side: int | None = None
) -> tuple[Image.Image, Sequence[int]]:
    """The luma of a plain JPEG, upright, and its quantisation table.

    Args:
        stream: The file.
        decoder: As its header says.
        side: Pixels of the shorter side that are enough; None = all.

    Raises:
        UserError: It cannot be decoded.
    """
    try:
        with jpeg.open_8bit(stream) as image:
            tables = getattr(image, "quantization", {})
            image.draft("L", (side, side) if side else image.size)
            gray = image.convert("L")
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"cannot be decoded ({error})") from None
    if decoder in TURNED:
        gray = Image.fromarray(turn_upright(np.asarray(gray), TURNED[decoder]))
    return gray, tables.get(0, ())


def gray_values(pixels: np.ndarray) -> np.ndarray:
    """Luma of colours, mean of bands: float32 [H, W] of pixels [H, W, C], in their range."""
    if pixels.shape[-1] in (1, 3):
        return with_channels(pixels, 1)[..., 0].astype(np.float32)
    mean: np.ndarray = pixels.mean(axis=-1, dtype=np.float32)
    return mean


def shrink(gray: Image.Image) -> np.ndarray:
    """A grey picture, of mode L or F, as `grey_thumbnail` gives it."""
    small = np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    low, high = float(small.min()), float(small.max())
    stretched = (small - low) * (255 / (high - low)) if high > low else np.zeros_like(small)
    return np.rint(stretched).astype(np.uint8)


def perceptual_hash(thumbnail: np.ndarray) -> int:
    """The 64 bits of pHash.

    Args:
        thumbnail: Grey, uint8 [H, W].
    """
    import imagehash

    bits = imagehash.phash(Image.fromarray(thumbnail)).hash.ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


# Flip or not, quarter turns: the ways in which a square picture can lie, upright first.
_WAYS = tuple((flip, turns) for flip in (False, True) for turns in range(4))


def _lying(thumbnails: np.ndarray, flip: bool, turns: int) -> np.ndarray:
    """Thumbnails [n, 64, 64], flipped if asked for and then turned."""
    return np.rot90(thumbnails[:, :, ::-1] if flip else thumbnails, turns, axes=(1, 2))


def _lying_hashes(thumbnails: Sequence[np.ndarray]) -> list[list[int]]:
    """The hash of every thumbnail in every way of `_WAYS` but the first."""
    stack = np.asarray(thumbnails)
    ways = [[perceptual_hash(t) for t in _lying(stack, *way)] for way in _WAYS[1:]]
    return [list(hashes) for hashes in zip(*ways, strict=True)]


def near_pairs(
    looks: Looks,
    distance: int = NEAR_DISTANCE,
    correlation: float = NEAR_CORRELATION,
    *,
    turned: bool = False,
) -> np.ndarray:
    """All pairs of near duplicates.

    Every pair is compared, in blocks, so memory stays flat. Pictures of a single value look like
    nothing: empty tiles would chain all pictures together that have a margin.

    Args:
        looks: Of n pictures.
        distance: Most bits, of 64, in which the hashes may differ.
        correlation: Least Pearson correlation of the thumbnails, in [-1, 1].
        turned: Also find flipped and rotated copies.

    Returns:
        int64 [m, 2], positions i < j, sorted.
    """
    looks = _without_common_margin(looks)
    pictures = _Pictures.of(looks)
    found = [_pairs(pictures, looks.hashes, _WAYS[0], distance, correlation)]
    if turned and len(looks.hashes):
        hashes = np.array(list(in_parallel(_lying_hashes, list(looks.thumbnails))), np.uint64)
        for way, others in zip(_WAYS[1:], hashes.T, strict=True):
            found.append(_pairs(pictures, others, way, distance, correlation))
    return np.unique(np.concatenate(found), axis=0)


def _without_common_margin(looks: Looks) -> Looks:
    """The looks of what lies inside the margin that all pictures share, if they share one.

    Plots drawn in the same white frame would all correlate by the frame alone.
    """
    number = len(looks.thumbnails)
    if not number:
        return looks
    low, high = looks.thumbnails.min(axis=0), looks.thumbnails.max(axis=0)
    varied = [np.flatnonzero(high.max(axis).astype(int) - low.min(axis) > _SAME) for axis in (1, 0)]
    if not len(varied[0]) or all(rows[0] == 0 and rows[-1] == SIDE - 1 for rows in varied):
        return looks
    (top, bottom), (left, right) = ((rows[0], rows[-1] + 1) for rows in varied)
    if (bottom - top) * (right - left) < _LEAST_INSIDE * SIDE * SIDE:
        return looks  # Sources in an empty sky: that it is empty tells how little they hold.
    inside = room_for_looks(number)
    for i, thumbnail in enumerate(looks.thumbnails):
        inside.thumbnails[i] = shrink(Image.fromarray(thumbnail[top:bottom, left:right]))
        inside.hashes[i] = perceptual_hash(inside.thumbnails[i])
    return inside


@dataclass(frozen=True, eq=False)
class _Pictures:
    """Data of n thumbnails for their comparison: hashes, pixels, and their moments [n]."""

    hashes: np.ndarray
    thumbnails: np.ndarray
    mean: np.ndarray
    norm: np.ndarray
    poor: np.ndarray

    @classmethod
    def of(cls, looks: Looks) -> "_Pictures":
        rows = looks.thumbnails.reshape(len(looks.thumbnails), SIDE * SIDE)
        mean, norm, share = np.zeros((3, len(rows)))
        for start in range(0, len(rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            block = rows[part].astype(np.float64)
            mean[part] = block.mean(axis=1)
            power = (block - mean[part, np.newaxis]) ** 2
            total, fourth = power.sum(axis=1), (power**2).sum(axis=1)
            norm[part] = np.sqrt(total)
            # Participation ratio: over which share of the pixels the contrast is spread.
            share[part] = total**2 / np.maximum(fourth, 1e-9) / rows.shape[1]
        return cls(looks.hashes, looks.thumbnails, mean, norm, share < _POOR_DETAIL)


def _pairs(
    pictures: _Pictures,
    others: np.ndarray,
    way: tuple[bool, int],
    distance: int,
    correlation: float,
) -> np.ndarray:
    """Pairs of pictures that look alike, the first upright and the second flipped and turned.

    Args:
        pictures: All of them.
        others: Their hashes when flipped and turned, uint64 [n].
        way: Flip and turns, one of `_WAYS`.
        distance: See `near_pairs`.
        correlation: See `near_pairs`.
    """
    pairs = [np.empty((0, 2), np.int64)]
    poor_correlation = max(_POOR_CORRELATION, correlation)
    contrast = pictures.norm > 0
    for start in range(0, len(others), _ROWS):
        block = pictures.hashes[start : start + _ROWS]
        bits = np.bitwise_count(block[:, np.newaxis] ^ others[np.newaxis, start:])
        near = bits <= distance
        if not contrast.all():
            near &= contrast[start : start + _ROWS, np.newaxis] & contrast[start:]
        candidates = np.argwhere(near) + start
        candidates = candidates[candidates[:, 0] < candidates[:, 1]]
        for part in range(0, len(candidates), _BLOCK):
            i, j = candidates[part : part + _BLOCK].T
            one, other = pictures.thumbnails[i], _lying(pictures.thumbnails[j], *way)
            poor = pictures.poor[i] | pictures.poor[j]
            least = np.where(poor, poor_correlation, correlation)
            enough = _correlation(pictures, i, j, one, other) >= least
            equal = (one == other).all(axis=(1, 2))
            pairs.append(candidates[part : part + _BLOCK][enough | equal])
    return np.concatenate(pairs)


def _correlation(
    pictures: _Pictures, i: np.ndarray, j: np.ndarray, one: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """Pearson correlation of the pictures `i` with `j`, [m], from thumbnails as they lie."""
    product = np.einsum("nyx,nyx->n", one.astype(np.int32), other.astype(np.int32))
    covariance = product - SIDE * SIDE * pictures.mean[i] * pictures.mean[j]
    scale = pictures.norm[i] * pictures.norm[j]
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)


def near_groups(pairs: np.ndarray, number: int) -> np.ndarray:
    """Numbers of the groups that pairs chain together.

    Args:
        pairs: int [m, 2].
        number: Of all images.

    Returns:
        int64 [number]; images in no pair are groups of their own.
    """
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(number, number))
    return connected_components(graph, directed=False)[1].astype(np.int64)
