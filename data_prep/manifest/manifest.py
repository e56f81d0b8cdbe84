"""The manifest: the table of a data set's images, with what is known of each.

A manifest is a CSV file with the columns `path, label, split, group, case, target` and, where they
are used, `tile, reading, sha256, target_scale`; only `path` is needed. Order matters: the position
of a record is the index of its example everywhere else.

Paths are relative to the folder of the CSV, or to the folder that the columns `root` (absolute) and
`relative_root` (from the folder of the CSV) name; see `root`.
"""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from data_prep.csv_files import PATH_COLUMNS, CsvTable, read_csv, write_csv
from data_prep.errors import UserError
from data_prep.manifest.identity import ALL_AS_CHANNELS, Image, Picture, image_name, image_of
from data_prep.manifest.root import (
    RELATIVE_ROOT,
    ROOT,
    common_folder,
    placed_paths,
    root_to_record,
)
from data_prep.names import clean_name, composed
from data_prep.reading.spec import OF_BEFORE

_LOGGER = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")

_SPLIT_STEMS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
SPLIT_ALIASES = {
    stem + ending: split
    for split, stems in _SPLIT_STEMS.items()
    for stem in stems
    for ending in ("", "_set", "_data")
}


def canonical_split(name: str) -> str:
    """The split that a name stands for: `Train_Set` -> `train`; others in their one form."""
    name = clean_name(name)
    return SPLIT_ALIASES.get(name.lower().replace("-", "_"), name)


@dataclass(frozen=True, slots=True)
class Record:
    """One image and what is known of it; an empty string means "not known".

    Attributes:
        path: File, absolute or relative to the manifest's root.
        label: Name of the class.
        split: `train`, `validation`, `test` or another name.
        group: Images of one group (specimen, field of view) are never torn between splits.
        case: Sub-population, such as an instrument setting.
        target: File of the image to predict, for paired data.
        tile: Part of the picture that the record stands for, `x,y,width,height` in pixels; the
            tiles of one picture are never torn between splits.
        reading: How the file becomes an image: page, axes, intensity rule; see `spec.Reading`.
        sha256: Hash of the file's bytes, in hexadecimal.
        target_scale: Physical units of one stored unit of the target, such as 0.01; empty = 1.
    """

    path: str
    label: str = ""
    split: str = ""
    group: str = ""
    case: str = ""
    target: str = ""
    tile: str = ""
    reading: str = ""
    sha256: str = ""
    target_scale: str = ""

    @property
    def name(self) -> str:
        """The path, with array, page and tile where the image is a part of its file."""
        return image_name(self.path, self.reading, self.tile)

    @property
    def picture_name(self) -> str:
        """`name` without the tile."""
        return image_name(self.path, self.reading)


COLUMNS = tuple(column.name for column in fields(Record))
_BASIC = COLUMNS[:6]
_basic_values = attrgetter(*_BASIC)


class HeaderFacts(NamedTuple):
    """Facts from the header of an image, see `reading.headers.Header`."""

    height: int
    width: int
    channels: int
    bits: int
    decoder: int


class Headers:
    """Facts from the headers of images that were read, so that none is read twice.

    A folder has few kinds of images: equal facts are held once.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, HeaderFacts]] = {}
        self._held: dict[HeaderFacts, HeaderFacts] = {}

    def get(self, record: Record) -> HeaderFacts | None:
        """The facts of an image; None if its header has not been read."""
        own = self._known.get((record.reading, record.tile))
        return own.get(record.path) if own else None

    def note(self, record: Record, header: HeaderFacts) -> None:
        """Keeps the facts of an image."""
        own = self._known.setdefault((record.reading, record.tile), {})
        own[record.path] = self._held.setdefault(header, header)

    def note_same(self, record: Record, other: Record) -> None:
        """Keeps for another reading of an image what is known of it."""
        header = self.get(record)
        if header is not None:
            self.note(other, header)


@dataclass(frozen=True)
class Manifest:
    """An ordered set of records.

    Attributes:
        records: The records, in the order that defines example indices.
        root: Folder to which relative paths belong; empty = the current folder.
        headers: What is known of the files, shared by all manifests that were made of one another.
    """

    records: tuple[Record, ...]
    root: str = ""
    headers: Headers = field(default_factory=Headers, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The labels in use, sorted; images without a label do not count."""
        return tuple(sorted({record.label for record in self.records} - {""}))

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits in use: train, validation, test, then the others by name."""
        present = {record.split for record in self.records} - {""}
        return tuple(name for name in SPLITS if name in present) + tuple(
            sorted(present.difference(SPLITS))
        )

    def split(self, name: str) -> "Manifest":
        """The records of one split, in order.

        Raises:
            UserError: No record has this split.
        """
        wanted = name if name in self.splits else clean_name(name)
        chosen = [record for record in self.records if record.split == wanted]
        if not chosen:
            known = ", ".join(self.splits) or "none"
            raise UserError(f"the data has no split {name!r} (its splits: {known})")
        return self.subset(chosen)

    def subset(self, records: Iterable[Record]) -> "Manifest":
        """A manifest of other records with the same root, and what is known of its files."""
        return Manifest(tuple(records), self.root, self.headers)

    def files(self) -> list[str]:
        """Absolute paths of the images, in order; symbolic links are kept."""
        return list(self._files)

    @cached_property
    def _files(self) -> tuple[str, ...]:
        base = os.path.abspath(self.root)
        return tuple(os.path.normpath(os.path.join(base, record.path)) for record in self.records)

    def target_files(self) -> list[str]:
        """Absolute paths of the targets, in order; empty where there is none."""
        base = os.path.abspath(self.root)
        return [
            os.path.normpath(os.path.join(base, record.target)) if record.target else ""
            for record in self.records
        ]

    def images(self) -> list[Image]:
        """The identity of every record, in order: file, array, page and tile."""
        return list(self._images)

    @cached_property
    def _images(self) -> tuple[Image, ...]:
        return tuple(
            image_of(file, record.reading, record.tile)
            for file, record in zip(self._files, self.records, strict=True)
        )

    def pictures(self) -> list[Picture]:
        """The picture of every record: what tiles have in common, and no split may tear.

        Each page of a file is a picture of its own, unless some record takes all pages as channels
        of one picture; so is each array, unless some record of the file names none.
        """
        pictures = [image.picture for image in self._images]
        stacked = {picture[:2] for picture in pictures if picture.page == ALL_AS_CHANNELS}
        unnamed = {picture.file for picture in pictures if not picture.array}
        return [
            Picture(
                picture.file,
                "" if picture.file in unnamed else picture.array,
                ALL_AS_CHANNELS if picture[:2] in stacked else picture.page,
            )
            for picture in pictures
        ]

    def label_indices(self, class_names: Sequence[str]) -> np.ndarray:
        """Position of every label in `class_names`: int64 [n], -1 where there is no label.

        Raises:
            UserError: A label is not among `class_names`.
        """
        # Networks of before may have their names in another Unicode form.
        index = {clean_name(name): position for position, name in enumerate(class_names)}
        index |= {name: position for position, name in enumerate(class_names)} | {"": -1}
        unknown = sorted({record.label for record in self.records}.difference(index))
        if unknown:
            raise UserError(
                f"label {unknown[0]!r} is not among the {len(class_names)} known classes"
                f" ({_some(class_names)})"
            )
        return np.array([index[record.label] for record in self.records], dtype=np.int64)

    def sha256(self) -> str:
        """Hash of the content, the same wherever the images lie.

        Paths count relative to the deepest folder that holds all images, so a copy of the folder
        elsewhere, or a manifest saved and loaded again, has the same hash. The hashes of the files
        do not count: they are known or not.
        """
        files = self.files()
        common = common_folder(files)
        digest = hashlib.sha256()
        for record, file, target in zip(self.records, files, self.target_files(), strict=True):
            relative = file[len(common) :].replace(os.sep, "/").lstrip("/")
            beside = os.path.relpath(target, common).replace(os.sep, "/") if target else ""
            # Copies to another system may change the Unicode form of names.
            row = (composed(relative), *_basic_values(record)[1:-1], composed(beside))
            reading = _hashed(record.reading)
            if record.tile or reading or record.target_scale:
                row += (record.tile, reading)
            if record.target_scale:
                row += (record.target_scale,)
            digest.update("\x1f".join(row).encode() + b"\n")
        return digest.hexdigest()

    def table(self) -> str:
        """Images per class (rows) and split (columns), as aligned text with totals."""
        splits = self.splits + (("",) if any(not r.split for r in self.records) else ())
        labels = self.class_names + (("",) if any(not r.label for r in self.records) else ())
        count = Counter((record.label, record.split) for record in self.records)
        rows = [["class", *(split or "no split" for split in splits), "total"]]
        for label in labels:
            numbers = [count[label, split] for split in splits]
            rows.append([label or "no label", *map(str, numbers), str(sum(numbers))])
        totals = [sum(count[label, split] for label in labels) for split in splits]
        rows.append(["total", *map(str, totals), str(len(self))])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        )

    def save(self, path: str | os.PathLike[str], *, place: str | os.PathLike[str] = "") -> None:
        """Writes the CSV, whole or not at all.

        Paths, of images and targets, are written relative: to the folder of the CSV if the images
        belong to it, or else to a root that the CSV records, so that it can be used from anywhere
        and be moved with its images (`Manifest.load`).

        Args:
            path: The file.
            place: The folder in which the file will lie in the end, if not in that of `path`.
        """
        destination = os.path.abspath(path)
        folder = os.path.abspath(place) if place else os.path.dirname(destination)
        columns = [c for c in COLUMNS if c in _BASIC or any(getattr(r, c) for r in self.records)]
        values = attrgetter(*columns)
        rows: list[tuple[str, ...]] = [tuple(columns)]
        if os.path.abspath(self.root) in (folder, os.path.dirname(destination)):
            rows += [values(record) for record in self.records]
        else:
            recorded = root_to_record(self.root, self.files(), self.target_files(), folder)
            if recorded.root:
                rows[0] += (ROOT, RELATIVE_ROOT)
            places = zip(self.records, recorded.paths, recorded.targets, strict=True)
            for record, file, target in places:
                rows.append(values(replace(record, path=file, target=target)) + recorded.cells)
        os.makedirs(os.path.dirname(destination), exist_ok=True)
        write_csv(destination, rows)

    @staticmethod
    def load(path: str | os.PathLike[str], image_dir: str | os.PathLike[str] = "") -> "Manifest":
        """Reads a manifest CSV; its images are looked for as the module `root` says.

        Names are brought to their one form (`names.clean_name`), those of splits made canonical
        (`val` -> `validation`); paths are as on disk. Columns of other names are ignored and
        logged. Whether the images exist is checked by `scan.check_images`.

        Args:
            path: The CSV.
            image_dir: The folder in which the images lie now, if not where the CSV says.

        Raises:
            UserError: The file cannot be read as a manifest, an image is listed twice, only some of
                the images have a split, or `image_dir` does not hold the images.
        """
        source = os.path.abspath(path)
        if not os.path.isfile(source):
            raise UserError(f"manifest not found: {source}")
        table = read_csv(source)
        records, root = _read_records(table, source, image_dir)
        manifest = Manifest(tuple(records), root)
        _check_records(manifest, table)
        return manifest


def _read_records(
    table: CsvTable, source: str, image_dir: str | os.PathLike[str]
) -> tuple[list[Record], str]:
    """The records, and the root of their paths."""
    used = {table.position(*PATH_COLUMNS)}
    columns: dict[str, list[str]] = {}
    for name in COLUMNS[1:]:
        texts = table.texts(name)
        if texts is not None:
            columns[name] = texts
            used.add(table.position(name))
    used |= {table.position(ROOT), table.position(RELATIVE_ROOT)}
    ignored = [name for position, name in enumerate(table.header) if position not in used]
    if ignored:
        _LOGGER.info("%s: columns not used: %s", source, ", ".join(filter(None, ignored)))
    paths, targets, root = placed_paths(table, image_dir)
    columns |= {"path": paths, "target": targets}
    columns["split"] = list(map(canonical_split, columns.get("split", ())))
    names = [name for name in COLUMNS if columns.get(name)]
    rows = zip(*(columns[name] for name in names), strict=True)
    return [Record(**dict(zip(names, row, strict=True))) for row in rows], root


def _check_records(manifest: Manifest, table: CsvTable) -> None:
    source = table.source
    if not manifest.records:
        raise UserError(f"{source} lists no images")
    without = [row for row, record in enumerate(manifest.records) if not record.split]
    if 0 < len(without) < len(manifest):
        raise UserError(
            f"{table.place(without[0])}: {len(without)} of {len(manifest)} images have no split;"
            " fill the column for all of them or for none"
        )
    for name in manifest.splits:
        # Splits name files and folders that commands write.
        if name.startswith(".") or set(name) & set("/\\:") or not name.isprintable():
            raise UserError(
                f"{source}: the split {name!r} cannot be part of a file's name; rename it"
            )
    splits: dict[Picture, str] = {}
    for row, (record, picture) in enumerate(
        zip(manifest.records, manifest.pictures(), strict=True)
    ):
        before = splits.setdefault(picture, record.split)
        if before != record.split:
            what = "tiles of one picture are" if record.tile else "is"
            named = image_name(picture.file, record.reading)
            raise UserError(
                f"{table.place(row)}: {named} {what} in two splits, {before} and {record.split}"
            )
    if len(splits) == len(manifest):
        return
    first: dict[Image, int] = {}
    for row, (record, image) in enumerate(zip(manifest.records, manifest.images(), strict=True)):
        before_row = first.setdefault(image, row)
        if before_row != row:
            named = image_name(image.file, record.reading, record.tile)
            raise UserError(
                f"{table.place(row)}: {named} is listed twice, first in line"
                f" {table.lines[before_row]}"
            )


def _hashed(reading: str) -> str:
    """A reading as it counts for the hash, so that sets of version 0.1.0 keep theirs.

    They were read with EXIF ignored and percentiles sampled, and did not say so.
    """
    unsaid = {f"{name}={how}" for name, how in OF_BEFORE.items()}
    return ";".join(part for part in reading.split(";") if part not in unsaid)


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
