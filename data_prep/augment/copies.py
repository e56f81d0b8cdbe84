"""Augmented copies on disk, made after the split and of the training images only.

A copy made before a split, or of an image outside the training part, would put almost the same
picture on both sides and spoil every number measured. So images without splits are refused, and
validation and test are passed on as they are.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from data_prep.augment.copy_operations import RANDOM, apply_operation, check_operations, is_exact
from data_prep.errors import UserError
from data_prep.manifest.folder_tree import check_folder_names, tree_paths, write_trees
from data_prep.manifest.groups import inner_paths
from data_prep.manifest.identity import image_name
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.scan import image_facts
from data_prep.manifest.splits import generator
from data_prep.reading.formats.arrays import array_suffixes
from data_prep.reading.formats.raw import SUFFIXES as RAW_SUFFIXES
from data_prep.reading.images import encode_lossless, read_stored
from data_prep.reading.spec import STACK, Reading, parse_reading
from data_prep.reading.tiles import parse_box
from data_prep.storage import (
    check_new_folder,
    file_sha256,
    is_complete,
    may_be_complete,
    partial_folder,
)


def encode_like(pixels: np.ndarray, file: str, reading: str = "") -> tuple[str, bytes]:
    """The bytes of a file that is read as these pixels; the same pixels, the same bytes.

    Args:
        pixels: [H, W, C] as `images.read_stored` gives them.
        file: Name of the file they came from: arrays stay arrays, pictures pictures.
        reading: What is declared of that file; the axes of an array stay as they are.

    Returns:
        The ending, `.png` wherever PNG keeps all, else `.npy` for arrays and `.tif` for pictures;
        and the bytes.
    """
    channels, kind = pixels.shape[-1], pixels.dtype
    is_array = file.lower().endswith((*array_suffixes(), *RAW_SUFFIXES))
    if kind == np.bool_ and not is_array:
        pixels, kind = pixels.astype(np.uint8) * np.uint8(255), np.dtype(np.uint8)
    if (kind == np.uint8 and channels in (1, 3)) or (kind == np.uint16 and channels == 1):
        stream = io.BytesIO()
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(stream, "PNG")
        return ".png", stream.getvalue()
    if not is_array:
        return ".tif", encode_lossless(pixels)
    stream = io.BytesIO()
    axes = _axes(parse_reading(reading))
    values = pixels if "C" in axes else pixels[..., 0]
    order = ["HWC".index(axis) for axis in axes]
    np.save(stream, np.ascontiguousarray(values.transpose(order)))
    return ".npy", stream.getvalue()


def kept_reading(reading: str, path: str) -> str:
    """Returns the part of an image's reading that still holds for a file made by `encode_like`.

    Args:
        reading: What is declared of the image's file.
        path: Name, or ending, of the file that was made.
    """
    declared = parse_reading(reading)
    axes = _axes(declared) if os.path.splitext(path)[1] == ".npy" else ""
    return str(
        replace(
            declared,
            page=None,
            axes="" if axes == "HW" else axes,
            array="",
            shape=(),
            dtype="",
            offset=0,
        )
    )


def _axes(reading: Reading) -> str:
    """The axes of one image of an array, such as HW, HWC or CHW."""
    axes = reading.axes or "HW"
    return axes.replace("N", "C" if reading.page == STACK else "")


@dataclass(frozen=True)
class CopyPlan:
    """Plan of the copies that are made of every training image.

    Attributes:
        operations: Names from `copy_operations.OPERATIONS`.
        copies: Copies by each operation with random numbers; exact ones make one each.
        seed: The same seed gives the same copies, whatever their order.
    """

    operations: tuple[str, ...]
    copies: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_operations(self.operations)
        if self.copies < 1:
            raise UserError(f"copies={self.copies}: must be 1 or more")
        if self.seed < 0:
            raise UserError(f"seed={self.seed}: must be 0 or more")

    def copies_of_one(self) -> list[tuple[str, int]]:
        """(operation, which copy by it) of every copy of an image, in the order of their names."""
        return [
            (operation, number)
            for operation in self.operations
            for number in range(1 if is_exact(operation) else self.copies)
        ]


@dataclass(frozen=True)
class CopySource:
    """An image to copy.

    Attributes:
        file: The file.
        record: What its copies inherit.
        identity: Key of the random numbers: the image's path in the set, and its part of the file.
        names: Names of its copies, below the output and without ending.
    """

    file: str
    record: Record
    identity: str
    names: tuple[str, ...]


def copy_pixels(
    pixels: np.ndarray, operation: str, number: int, identity: str, seed: int
) -> np.ndarray:
    """One copy of an image, a function of these arguments alone.

    Args:
        pixels: [H, W, C] as stored.
        operation: One of `copy_operations.OPERATIONS`.
        number: Which copy by this operation, from 0.
        identity: What image this is, such as its path in the set.
        seed: Seed of all copies.

    Returns:
        [H', W', C] of the same type.
    """
    numbers = generator(seed, "augment", identity, operation, str(number))
    return apply_operation(pixels, operation, numbers)


def write_all(
    sources: Sequence[CopySource],
    folder: Path,
    plan: CopyPlan,
    workers: int,
    progress: Callable[[int, int], None],
) -> list[Record]:
    """Writes the copies that are not there yet.

    Args:
        sources: The images.
        folder: Where to write.
        plan: The copies.
        workers: Pictures worked on at the same time.
        progress: Called with (copies done, copies in all).

    Returns:
        The records of all copies, image by image; their paths are relative to `folder`.
    """
    there = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in folder.rglob("*_aug*")
        if not path.name.startswith(".")
    }
    pictures: dict[tuple[str, str], list[CopySource]] = defaultdict(list)
    for source in sources:
        (folder / source.names[0]).parent.mkdir(parents=True, exist_ok=True)
        pictures[source.file, source.record.reading].append(source)
    total = len(sources) * len(plan.copies_of_one())
    found: dict[tuple[str, ...], list[Record]] = {}
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        try:
            for made in pool.map(
                lambda same: _copy_picture(same, folder, plan, there), pictures.values()
            ):
                found |= made
                done += sum(map(len, made.values()))
                progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [record for source in sources for record in found[source.names]]


def _copy_picture(
    sources: Sequence[CopySource], folder: Path, plan: CopyPlan, there: Mapping[str, Path]
) -> dict[tuple[str, ...], list[Record]]:
    """The copies of all images of one picture, which is read once, by their names."""
    made: dict[tuple[str, ...], list[Record]] = {}
    picture: np.ndarray | None = None
    for source in sources:
        record, records = source.record, []
        for name, (operation, number) in zip(source.names, plan.copies_of_one(), strict=True):
            if name in there:
                path = there[name]
            else:
                if picture is None:
                    picture = read_stored(source.file, record.reading, spread=True)
                try:
                    pixels = copy_pixels(
                        part_of(picture, record), operation, number, source.identity, plan.seed
                    )
                except UserError as error:
                    raise UserError(f"{source.file}: {error}") from None
                path = _write(folder / name, *encode_like(pixels, source.file, record.reading))
            records.append(
                replace(
                    record,
                    path=path.relative_to(folder).as_posix(),
                    tile="",
                    reading=kept_reading(record.reading, path.name),
                    sha256=file_sha256(path) if record.sha256 else "",
                )
            )
        made[source.names] = records
    return made


def part_name(record: Record) -> str:
    """Returns the text that tells the images of one file apart in the names of their copies."""
    page = parse_reading(record.reading).page
    text = f"_p{page}" if isinstance(page, int) else ""
    if record.tile:
        box = parse_box(record.tile)
        text += f"_x{box.x}_y{box.y}"
    return text


def part_of(picture: np.ndarray, record: Record) -> np.ndarray:
    """The part of a picture, [H, W, C], that a record stands for."""
    if not record.tile:
        return picture
    box = parse_box(record.tile)
    return picture[box.y : box.y + box.height, box.x : box.x + box.width]


def _write(path: Path, ending: str, content: bytes) -> Path:
    """Writes a file in one step; returns its name with the ending."""
    whole = path.with_name(path.name + ending)
    part = whole.with_name(f".{whole.name}.part")
    part.write_bytes(content)
    part.replace(whole)
    return whole


_LOGGER = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.csv"
TRAIN = "train"

_COPY = re.compile(r"_aug\d\d+_[a-z0-9]+$")

Originals = Literal["hardlink", "symlink", "copy", "list"]


def write_copies(
    manifest: Manifest,
    output: str | os.PathLike[str],
    plan: CopyPlan,
    originals: Originals = "hardlink",
    *,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Writes a set of all images and the augmented copies of those of the training part.

    The output holds SPLIT/CLASS/FILE and `manifest.csv`. A copy is named after its image
    (`f03_aug01_hflip.png`) and has its label, case and group; images without a group get the
    name of their picture as group, so that copies can never be torn from them. After an
    interruption, even a kill, the same call continues where it was and writes the same bytes.

    Args:
        manifest: The images, with splits.
        output: A folder that does not exist yet or is empty.
        plan: The copies.
        originals: How the images themselves get there: linked, copied, or only listed where they
            are. Images that share a file (tiles, pages) are always listed.
        workers: Images worked on at the same time; 0 = one a processor.
        progress: Called with (copies done, copies in all).

    Returns:
        The new manifest, rooted at `output`: the images in their order, then the copies.

    Raises:
        UserError: No split, no training images, paired images, an operation that does not go with
            an image, unreadable images, or an output that holds something.
    """
    target = Path(output).expanduser().absolute()
    if not may_be_complete(target):
        check_new_folder(target)
    _check(manifest, plan)
    files = manifest.files()
    if originals != "list" and len(set(files)) < len(files):
        _LOGGER.info("several images share a file, so the images stay where they are")
        originals = "list"
    # Also where no tree is made of them: copies get there, by the same names of folders.
    check_folder_names(manifest)
    places = files if originals == "list" else tree_paths(manifest)
    kept = [
        replace(record, path=place, group=record.group or own.lstrip("/") * (record.split == TRAIN))
        for record, place, own in zip(manifest.records, places, _pictures(manifest), strict=True)
    ]
    sources = _sources(manifest, kept, plan)
    workers = workers or os.cpu_count() or 1
    fingerprint = _fingerprint(manifest, plan, originals)
    if is_complete(target, fingerprint):
        return Manifest.load(target / MANIFEST_NAME)
    with partial_folder(target, fingerprint) as folder:
        if originals != "list" and not any(folder.iterdir()):
            folder.rmdir()
            write_trees({"": manifest}, folder, originals)
        copies = write_all(sources, folder, plan, workers, progress)
        result = Manifest((*kept, *copies), str(folder))
        result.save(folder / MANIFEST_NAME)
    return Manifest(result.records, str(target))


def _check(manifest: Manifest, plan: CopyPlan) -> None:
    if not manifest.splits:
        raise UserError(
            "the images have no splits, and copies made before a split end up on both sides of it;"
            " make one first with simclr-split"
        )
    if TRAIN not in manifest.splits:
        raise UserError(
            f"the images have no split named train (but {', '.join(manifest.splits)}), and only"
            " training images are augmented; simclr-split makes one"
        )
    train = manifest.split(TRAIN)
    paired = next((record.path for record in train.records if record.target), None)
    if paired:
        raise UserError(
            f"{paired} has a target image, which would have to be turned with it; paired images"
            " are not augmented on disk"
        )
    again = sum(bool(_COPY.search(_stem(record.path))) for record in train.records)
    if again:
        _LOGGER.warning("%d training images are augmented copies already, by their names", again)
    wanted = [name for name in plan.operations if name in RANDOM and RANDOM[name].rgb]
    if wanted:
        channels = image_facts(train).survey.channels
        other = np.flatnonzero(channels != 3)
        if len(other):
            raise UserError(
                f"{wanted[0]} needs RGB images, and {train.files()[other[0]]} has"
                f" {channels[other[0]]} channels; leave {wanted[0]} out"
            )


def _pictures(manifest: Manifest) -> list[str]:
    """A name of every image's picture, the same wherever the set lies."""
    inner = zip(inner_paths(manifest), manifest.records, strict=True)
    return [image_name(path, record.reading) for path, record in inner]


def _sources(manifest: Manifest, kept: Sequence[Record], plan: CopyPlan) -> list[CopySource]:
    """The training images, with names for their copies that nothing else in the folder has."""
    endings = [
        f"_aug{number:02d}_{operation}"
        for number, (operation, _) in enumerate(plan.copies_of_one())
    ]
    taken = {_stem(record.path).casefold() for record in kept}
    files, identities = manifest.files(), inner_paths(manifest)
    sources: dict[int, CopySource] = {}
    order = sorted(range(len(kept)), key=lambda index: (identities[index], str(kept[index])))
    for index in order:
        record, original = kept[index], manifest.records[index]
        if record.split != TRAIN:
            continue
        part = part_name(record)
        name = os.path.basename(_stem(original.path)) + part
        stem = "/".join(filter(None, (record.split, record.label, name)))
        names, number = [stem + ending for ending in endings], 1
        while any(name.casefold() in taken for name in names):
            number += 1
            names = [f"{stem}~{number}{ending}" for ending in endings]
        taken.update(name.casefold() for name in names)
        sources[index] = CopySource(files[index], record, identities[index] + part, tuple(names))
    return [sources[index] for index in sorted(sources)]


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]


def _fingerprint(manifest: Manifest, plan: CopyPlan, originals: Originals) -> str:
    """Hash of all that decides the output."""
    stamps = [(status.st_size, status.st_mtime_ns) for status in map(os.stat, manifest.files())]
    content = [manifest.sha256(), manifest.files(), stamps, asdict(plan), originals]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
