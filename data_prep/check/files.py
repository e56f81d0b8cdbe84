"""Findings about single files, and the examination of every file that they are made from."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from PIL import Image

from data_prep.check.findings import Finding
from data_prep.errors import UserError
from data_prep.manifest.identity import shares_file
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.near_duplicates import (
    DRAFT_SIDE,
    Looks,
    gray_thumbnail,
    gray_values,
    hash_of_part,
    is_plain_jpeg,
    jpeg_luma,
    perceptual_hash,
    room_for_looks,
    shrink,
)
from data_prep.manifest.read_options import where_declared
from data_prep.parallel import in_parallel
from data_prep.phrases import counted
from data_prep.reading.formats.hdf5 import after_user_block
from data_prep.reading.headers import read_header
from data_prep.reading.images import read_image
from data_prep.reading.spec import parse_reading
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
    """Facts of one file, from reading all of it.

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
        """True if all pixels are (nearly) the same."""
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
        The facts found; the same however many processors there are.
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
    """The facts of a readable file, and its thumbnail."""
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
        thumbnail = gray_thumbnail(file, reading) if drafted else shrink(whole)
        gray = np.asarray(whole)
        counts = np.bincount(gray.ravel(), minlength=256).cumsum()
        median = int(np.searchsorted(counts, (counts[-1] + 1) // 2)) / 255
    else:
        pixels = read_image(file, reading=reading, tile=tile)
        scale = 255 if pixels.dtype == np.uint8 else 1
        brightness = gray_values(pixels) / np.float32(scale)
        thumbnail = shrink(Image.fromarray(brightness, mode="F"))
        gray = brightness * 255
        median = float(np.median(brightness))
    top, bottom, left, right = _uniform_margins(gray, jpeg=named.format == "JPEG")
    facts = replace(
        named, height=header.height, width=header.width, channels=header.channels,
        bits=header.bits, quality=quality, left=left, top=top, right=right, bottom=bottom,
        margin=float(gray[0, 0]) / 255, low=float(gray.min()) / 255, median=median,
        high=float(gray.max()) / 255, orientation=header.orientation,
    )  # fmt: skip
    return facts, thumbnail


def _uniform_margins(gray: np.ndarray, *, jpeg: bool = False) -> tuple[int, int, int, int]:
    """Rows above and below, columns left and right, that have the colour of the first corner.

    Args:
        gray: [H, W], 0 to 255.
        jpeg: Look through the ringing beside the edge.

    Returns:
        Zeros if the corners differ, or if there is nothing but that colour.
    """
    edges = [gray[0], gray[-1], gray[:, 0], gray[:, -1]]
    if np.ptp(gray[[0, 0, -1, -1], [0, -1, 0, -1]].astype(np.float32)) > _SAME or all(
        np.ptp(edge.astype(np.float32)) > 2 * _SAME for edge in edges
    ):
        return 0, 0, 0, 0
    strict = _margins_within(gray, _SAME)
    if not jpeg or not any(strict):
        return strict
    beyond = _margins_within(gray, _RINGING)
    top, bottom, left, right = (
        min(wide, narrow + _RINGING_PIXELS) if narrow else 0
        for narrow, wide in zip(strict, beyond, strict=True)
    )
    return top, bottom, left, right


def _margins_within(gray: np.ndarray, same: int) -> tuple[int, int, int, int]:
    first = float(gray[0, 0])
    other = (gray > first + same) | (gray < first - same)
    rows, columns = np.flatnonzero(other.any(axis=1)), np.flatnonzero(other.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    height, width = gray.shape
    return (
        int(rows[0]), int(height - 1 - rows[-1]), int(columns[0]), int(width - 1 - columns[-1])
    )  # fmt: skip


_SHOWN = 10
_FRAMED = 0.9  # share of the picture inside its margins, below which they are worth cutting
_LARGE = 2048  # pixels
_DARK_MEDIAN, _DARK_HIGH = 0.1, 4.0


def file_findings(examination: Examination) -> Iterator[Finding]:
    """Yields the findings about single files.

    Args:
        examination: The set.
    """
    records, facts = examination.manifest.records, examination.facts
    names = [record.name for record in records]
    bad = [i for i, fact in enumerate(facts) if fact.problem]
    if bad:
        what = "files" if len({record.path for record in records}) == len(records) else "images"
        declared = where_declared(" ".join(facts[i].problem for i in bad))
        yield Finding(
            "unreadable", "serious", f"{len(bad)} of {len(facts)} {what} cannot be read",
            "Mend or remove them; training would stop at them, or leave them out with "
            f"--skip_unreadable. {declared}".rstrip(),
            len(bad), tuple(f"{names[i]} ({facts[i].problem})" for i in bad[:_SHOWN]),
        )  # fmt: skip
    misnamed = list({r.path: i for i, r in enumerate(records) if facts[i].misnamed}.values())
    if misnamed:
        yield Finding(
            "misnamed", "warning", f"{counted(len(misnamed), 'file')} not what the ending says",
            "They are read by their content all the same; other programs may not. Rename them.",
            len(misnamed),
            tuple(f"{records[i].path} is {facts[i].format}" for i in misnamed[:_SHOWN]),
        )  # fmt: skip
    usable = examination.usable().tolist()
    yield from _turned(examination, usable)
    constant = [i for i in usable if facts[i].constant]
    if constant:
        yield Finding(
            "constant", "serious", f"{counted(len(constant), 'image')} of one colour",
            "There is nothing to be learnt from; remove what is empty.",
            len(constant), tuple(names[i] for i in constant[:_SHOWN]),
        )  # fmt: skip
    rest = [i for i in usable if not facts[i].constant]
    if rest:
        yield from _margins([facts[i] for i in rest])
        yield from _darkness([facts[i] for i in rest])
        yield from _sizes([facts[i] for i in rest])


def _turned(examination: Examination, usable: list[int]) -> Iterator[Finding]:
    """Yields a finding about pictures that note an orientation: how they are read."""
    records, facts = examination.manifest.records, examination.facts
    turned = [i for i in usable if facts[i].orientation != 1]
    if not turned:
        return
    ignored = sum(parse_reading(records[i].reading).exif == "ignore" for i in turned)
    how = "They are turned upright, as viewers show them; --exif=ignore reads them as stored."
    if ignored:
        how = (
            f"{ignored} of them {'is' if ignored == 1 else 'are'} read as stored, because"
            " --exif=ignore is declared."
        )
    yield Finding(
        "turned", "note", f"{counted(len(turned), 'image')} with an orientation noted in the file",
        f"{how} What was measured on the pictures (boxes, masks, depth) must lie the same way.",
        len(turned),
        tuple(f"{records[i].path}: {facts[i].orientation}" for i in turned[:_SHOWN]),
    )  # fmt: skip


def _margins(facts: list[FileFacts]) -> Iterator[Finding]:
    framed = [fact for fact in facts if fact.inside < _FRAMED]
    if len(framed) < len(facts) / 4:
        return
    white, black = (
        sum(fact.margin >= 0.9 for fact in framed),
        sum(fact.margin <= 0.1 for fact in framed),
    )
    color = max((white, "white"), (black, "black"), (len(framed) - white - black, "plain"))[1]
    inside = float(np.median([fact.inside for fact in framed]))
    text = f"Half of them fill at most {inside:.0%} of their picture."
    crop = _common_box(facts)
    if len({(f.width, f.height) for f in facts}) == 1:
        width, height = facts[0].width, facts[0].height
        left, top, right, bottom = crop
        if (right - left) * (bottom - top) < _FRAMED * width * height:
            text += (
                f" All of them lie within columns {left} to {right} and rows {top} to {bottom} of "
                f"{width} x {height}: cut that box out first, or random crops will show margin."
            )
        else:
            share = _typical_share(facts)
            if share < _FRAMED:
                text += (
                    f" Half of them keep within the central {share:.0%}: look for the"
                    " --central_crop that loses little, and keep --min_crop_area well above 0.08,"
                    " or most random crops will be empty."
                )
    title = f"{counted(len(framed), 'image')} with {color} margins"
    yield Finding("margins", "warning", title, text, len(framed))


def _common_box(facts: list[FileFacts]) -> tuple[int, int, int, int]:
    """The smallest box that no picture reaches beyond: left, top, right, bottom."""
    return (
        min(f.left for f in facts),
        min(f.top for f in facts),
        max(f.width - f.right for f in facts),
        max(f.height - f.bottom for f in facts),
    )


def _typical_share(facts: list[FileFacts]) -> float:
    """The central share of the shorter side that half of the pictures keep within."""
    reach = [
        max(
            abs(2 * f.left - f.width),
            abs(2 * f.right - f.width),
            abs(2 * f.top - f.height),
            abs(2 * f.bottom - f.height),
        )
        / min(f.width, f.height)
        for f in facts
    ]
    return min(1.0, float(np.median(reach)))


def _darkness(facts: list[FileFacts]) -> Iterator[Finding]:
    dark = [
        f for f in facts
        if f.median < _DARK_MEDIAN and f.high > _DARK_HIGH * max(f.median, 1 / 255)
    ]  # fmt: skip
    if len(dark) > len(facts) / 2:
        yield Finding(
            "dark", "note", f"{counted(len(dark), 'image')} dark, with a few bright pixels",
            f"Their median brightness is {np.median([f.median for f in dark]):.3f} of the range, "
            f"their brightest pixel {np.median([f.high for f in dark]):.2f}. Faint structure shows "
            "after --intensity=sqrt, arcsinh or percentile (simclr-manifest, simclr-run).",
            len(dark),
        )  # fmt: skip


def _sizes(facts: list[FileFacts]) -> Iterator[Finding]:
    sizes = Counter((f.width, f.height) for f in facts)
    if len(sizes) > 1:
        shown = [f"{w} x {h} ({n})" for (w, h), n in sizes.most_common(4)]
        yield Finding("sizes", "note", f"the images have {len(sizes)} sizes",
                      "That is allowed: views are cut and scaled from each.", len(facts),
                      tuple(shown))  # fmt: skip
    aspect = np.array([max(f.width, f.height) / min(f.width, f.height) for f in facts])
    large = [f for f in facts if max(f.width, f.height) >= _LARGE]
    if large:
        side = max(max(f.width, f.height) for f in large)
        yield Finding(
            "large", "note", f"{counted(len(large), 'large image')}, up to {side} pixels",
            "Scaled down whole they lose their detail: cut them into tiles with "
            "simclr-manifest --tile=512, which keeps the tiles of a picture together.",
            len(large),
        )  # fmt: skip
    elif np.median(aspect) > 1.15:
        yield Finding(
            "not_square", "note", f"the images are not square (aspect {np.median(aspect):.2f})",
            "Evaluation sees the central square of each.", len(facts),
        )  # fmt: skip
