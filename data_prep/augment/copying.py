"""The making of augmented copies: many pictures at a time, each read once, every file whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_prep.augment.copy_files import encode_like, kept_reading
from data_prep.augment.copy_operations import apply_operation, check_operations, is_exact
from data_prep.errors import UserError
from data_prep.manifest.manifest import Record
from data_prep.manifest.splits import generator
from data_prep.reading.images import read_stored
from data_prep.reading.spec import parse_reading
from data_prep.reading.tiles import parse_box
from data_prep.storage import file_sha256


@dataclass(frozen=True)
class CopyPlan:
    """Which copies are made of every training image.

    Attributes:
        operations: Names from `operations.OPERATIONS`.
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
class Source:
    """An image to copy.

    Attributes:
        file: The file.
        record: What its copies inherit.
        identity: What the random numbers belong to: its path in the set, and which part of it.
        names: Of its copies, below the output and without ending.
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
        operation: One of `operations.OPERATIONS`.
        number: Which copy by this operation, from 0.
        identity: What image this is, such as its path in the set.
        seed: Seed of all copies.

    Returns:
        [H', W', C] of the same type.
    """
    numbers = generator(seed, "augment", identity, operation, str(number))
    return apply_operation(pixels, operation, numbers)


def write_all(
    sources: Sequence[Source],
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
    pictures: dict[tuple[str, str], list[Source]] = defaultdict(list)
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
    sources: Sequence[Source], folder: Path, plan: CopyPlan, there: Mapping[str, Path]
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
    """What tells the images of one file apart in the names of their copies."""
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
