"""Which images belong to a data set, and what is known of each: the one table behind every source.

A manifest is a CSV file with the columns `path, label, split, group, case, target` and, where they
are used, `tile, reading, sha256, target_scale`; only `path` is needed. Order matters: the position
of a record is the index of its example everywhere else.
"""

import csv
import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from operator import attrgetter

import numpy as np

from data_prep.errors import UserError
from data_prep.files import write_text
from data_prep.identity import ALL_AS_CHANNELS, Image, Picture, image_name, image_of

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
    """The split that a name stands for: `Train_Set` -> `train`; others as given."""
    return SPLIT_ALIASES.get(name.strip().lower().replace("-", "_"), name.strip())


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
        reading: How the file becomes an image: page, axes, intensity rule; see `reading`.
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


COLUMNS = tuple(field.name for field in fields(Record))
_BASIC = COLUMNS[:6]
_basic_values = attrgetter(*_BASIC)


@dataclass(frozen=True)
class Manifest:
    """An ordered set of records.

    Attributes:
        records: The records, in the order that defines example indices.
        root: Folder to which relative paths belong; empty = the current folder.
    """

    records: tuple[Record, ...]
    root: str = ""

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
        chosen = [record for record in self.records if record.split == name]
        if not chosen:
            known = ", ".join(self.splits) or "none"
            raise UserError(f"the data has no split {name!r} (its splits: {known})")
        return self.subset(chosen)

    def subset(self, records: Iterable[Record]) -> "Manifest":
        """A manifest of other records with the same root."""
        return Manifest(tuple(records), self.root)

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
        """What tells every record from all others: file, array, page and tile."""
        return list(self._images)

    @cached_property
    def _images(self) -> tuple[Image, ...]:
        return tuple(
            image_of(file, record.reading, record.tile)
            for file, record in zip(self._files, self.records, strict=True)
        )

    def pictures(self) -> list[Picture]:
        """The picture of every record: what tiles have in common, and no split may tear.

        The pages of a file are pictures of their own, unless some record takes all of them as
        channels of one picture; so are its arrays, unless some record does not name one.
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
        index = {name: position for position, name in enumerate(class_names)} | {"": -1}
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
        common = os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
        digest = hashlib.sha256()
        for record, file, target in zip(self.records, files, self.target_files(), strict=True):
            relative = file[len(common) :].replace(os.sep, "/").lstrip("/")
            beside = os.path.relpath(target, common).replace(os.sep, "/") if target else ""
            row = (relative, *_basic_values(record)[1:-1], beside)
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the CSV, whole or not at all.

        Paths, of images and targets, are written relative when they belong to the folder of the CSV
        itself, absolute otherwise, so that the file can be used from anywhere (`Manifest.load`).
        """
        destination = os.path.abspath(path)
        folder = os.path.dirname(destination)
        keep = os.path.abspath(self.root) == folder
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = [c for c in COLUMNS if c in _BASIC or any(getattr(r, c) for r in self.records)]
        writer.writerow(columns)
        values = attrgetter(*columns)
        files = zip(self.records, self.files(), self.target_files(), strict=True)
        for record, file, target in files:
            placed = record if keep else replace(record, path=file, target=target)
            writer.writerow(values(placed))
        os.makedirs(folder, exist_ok=True)
        write_text(destination, text.getvalue())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Manifest":
        """Reads a manifest CSV; relative paths belong to the folder of the CSV.

        Split names are made canonical (`val` -> `validation`); columns of other names are ignored
        and logged. Whether the images exist is checked by `scan.check_images`.

        Raises:
            UserError: The file cannot be read as a manifest, an image is listed twice, or only
                some of the images have a split.
        """
        source = os.path.abspath(path)
        if not os.path.isfile(source):
            raise UserError(f"manifest not found: {source}")
        try:
            with open(source, newline="", encoding="utf-8-sig") as stream:
                records = _read_rows(csv.DictReader(stream), source)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{source} is not a CSV file in UTF-8: {error}") from None
        manifest = Manifest(tuple(records), os.path.dirname(source))
        _check_records(manifest, source)
        return manifest


def _read_rows(reader: csv.DictReader, source: str) -> list[Record]:
    header = [name.strip().lower() for name in reader.fieldnames or ()]
    if "path" not in header:
        raise UserError(
            f"{source} needs a column 'path' (comma-separated; also read: {', '.join(COLUMNS[1:])})"
            f"; its first line is {','.join(header)[:80]!r}"
        )
    reader.fieldnames = header
    ignored = [name for name in header if name not in COLUMNS]
    if ignored:
        _LOGGER.info("%s: columns not used: %s", source, ", ".join(ignored))
    records = []
    for row in reader:
        values = {name: (row.get(name) or "").strip() for name in COLUMNS}
        if not values["path"]:
            raise UserError(f"{source}, line {reader.line_num}: the path is empty")
        values["split"] = canonical_split(values["split"])
        records.append(Record(**values))
    return records


def _check_records(manifest: Manifest, source: str) -> None:
    if not manifest.records:
        raise UserError(f"{source} lists no images")
    missing = sum(not record.split for record in manifest.records)
    if 0 < missing < len(manifest):
        raise UserError(
            f"{source}: {missing} of {len(manifest)} images have no split; fill the column for all"
            " of them or for none"
        )
    for name in manifest.splits:
        # Splits name files and folders that commands write.
        if name.startswith(".") or set(name) & set("/\\:") or not name.isprintable():
            raise UserError(
                f"{source}: the split {name!r} cannot be part of a file's name; rename it"
            )
    splits: dict[Picture, str] = {}
    for record, picture in zip(manifest.records, manifest.pictures(), strict=True):
        before = splits.setdefault(picture, record.split)
        if before != record.split:
            what = "tiles of one picture are" if record.tile else "is"
            named = image_name(picture.file, record.reading)
            raise UserError(f"{source}: {named} {what} in two splits, {before} and {record.split}")
    if len(splits) == len(manifest):
        return
    seen: set[Image] = set()
    for record, image in zip(manifest.records, manifest.images(), strict=True):
        if image in seen:
            named = image_name(image.file, record.reading, record.tile)
            raise UserError(f"{source}: {named} is listed twice")
        seen.add(image)


def _hashed(reading: str) -> str:
    """A reading as it counts for the hash: that of sets from before EXIF was applied stays."""
    return ";".join(part for part in reading.split(";") if part != "exif=ignore")


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
