"""An embedding on disk: features, the table of its images, and an expert's labels joined to it."""

import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.csv_files import PATH_COLUMNS, CsvTable, csv_line, read_csv, read_written
from data_prep.errors import UserError
from data_prep.manifest.groups import unit_numbers
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.places import PLACE, place_columns, shown_names
from data_prep.manifest.root import RELATIVE_ROOT, ROOT
from data_prep.names import clean_name, name_problems
from data_prep.storage import read_object, write_text
from simclr_tf.evaluation.neighbors import Features

Column = Sequence[str] | np.ndarray
Columns = Mapping[str, Column]

KNOWN = (*PLACE, "label", "split", "group", "case")
_ROWS = 8192


def known_columns(images: Manifest) -> dict[str, list[str]]:
    """Columns of a manifest's images: place, label and split, and group and case where used.

    Returns:
        Columns of texts, "" = not known.
    """
    records = images.records
    columns = place_columns(images)
    columns |= {name: [getattr(r, name) for r in records] for name in ("label", "split")}
    rest = {name: [getattr(r, name) for r in records] for name in ("group", "case")}
    return columns | {name: texts for name, texts in rest.items() if any(texts)}


def write_rows(path: Path, columns: Columns) -> None:
    """Writes columns of equal length as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(csv_line(columns))
        file.writelines(map(csv_line, zip(*columns.values(), strict=True)))


def read_rows(path: Path) -> dict[str, list[str]]:
    """Reads the columns of a CSV, as texts."""
    header, rows = read_written(path)
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


def write_parquet(path: Path, columns: Columns, features: Features, dtype: np.dtype) -> None:
    """Writes columns, and features as a column `embedding` of lists of fixed length.

    Args:
        path: The file.
        columns: Of length n; arrays of numbers keep their type, texts are texts.
        features: [n, d], gone over in blocks.
        dtype: Of the features as they are to be written.
    """
    value = pa.from_numpy_dtype(dtype)
    kind = pa.list_(value, features.shape[1])
    fields = [
        (name, pa.from_numpy_dtype(c.dtype) if isinstance(c, np.ndarray) else pa.string())
        for name, c in columns.items()
    ]
    schema = pa.schema([*fields, ("embedding", kind)])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(features), _ROWS):
            rows = slice(start, start + _ROWS)
            block = np.ascontiguousarray(features[rows].astype(dtype))
            arrays = [pa.array(c[rows], kind) for c, (_, kind) in zip(columns.values(), fields,
                                                                      strict=True)]  # fmt: skip
            flat = pa.array(block.ravel(), value)
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, features.shape[1]))
            writer.write_batch(pa.record_batch(arrays, schema=schema))


FEATURES, TABLE, FACTS, MANIFEST = "features.npy", "embedding.csv", "embedding.json", "manifest.csv"
ARCHIVE, PARQUET, UNREADABLE = "embedding.npz", "embedding.parquet", "unreadable.csv"
COMPUTED = (FEATURES, MANIFEST, ARCHIVE, UNREADABLE, "floors.npz")


class FeatureFile:
    """Features in a `.npy` file, of which only what is asked for comes into memory.

    `numpy.load(path, mmap_mode="r")` opens the same file; here a mapping ends with each call, so
    that pages which were read do not count as the process's memory.

    Args:
        path: The file; [n, d].
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        mapped = self._mapped()
        self.shape: tuple[int, ...] = mapped.shape
        self.dtype: np.dtype = mapped.dtype

    def _mapped(self) -> np.ndarray:
        mapped: np.ndarray = np.load(self._path, mmap_mode="r")
        return mapped

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """The rows, float32 [m, d], as an array of their own."""
        return np.array(self._mapped()[rows], np.float32)


@dataclass(frozen=True)
class StoredEmbedding:
    """An embedding of n images.

    Attributes:
        folder: The folder that it lies in.
        features: [n, d].
        images: The records of the images, with absolute paths.
        columns: What is known of each: texts of `KNOWN`, and of experts.
        facts: What `embedding.json` holds.
    """

    folder: Path
    features: FeatureFile
    images: Manifest
    columns: dict[str, list[str]]
    facts: dict[str, Any]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def expert_columns(self) -> tuple[str, ...]:
        """Names of the columns that experts gave."""
        return tuple(self.facts.get("expert_columns", ()))

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Names of the columns that hold any label."""
        names = ("label", *self.expert_columns)
        return tuple(name for name in names if any(self.columns[name]))

    @cached_property
    def units(self) -> np.ndarray | None:
        """Number of each image's independent unit, int64 [n]; None = every image is one of its own.

        Images of one group share a number, and so do the tiles of one picture.
        """
        units = unit_numbers(self.images)
        return units if int(units.max()) + 1 < len(units) else None


def open_stored(folder: Path, flag: str = "embedding", image_dir: str = "") -> StoredEmbedding:
    """Opens a finished embedding.

    Args:
        folder: That `simclr-embed` made.
        flag: That names it, for messages.
        image_dir: Where its images lie now, if not where its manifest says.

    Raises:
        UserError: It is none, or its files do not belong together.
    """
    if not is_stored(folder):
        raise UserError(f"holds no embedding ({FEATURES} and {FACTS})", setting=flag, value=folder)
    facts = read_object(folder / FACTS)
    columns = read_rows(folder / TABLE)
    kept = {n: c for n, c in columns.items() if n in (*KNOWN, *facts["expert_columns"])}
    features, images = FeatureFile(folder / FEATURES), Manifest.load(folder / MANIFEST, image_dir)
    if not len(features) == len(images) == len(columns["path"]):
        raise UserError(
            f"{FEATURES} has {len(features)} rows, {TABLE} "
            f"{len(columns['path'])} and {MANIFEST} {len(images)}; embed the images again",
            setting=flag,
            value=folder,
        )
    return StoredEmbedding(folder, features, images, kept, facts)


def is_stored(folder: Path) -> bool:
    """True if a folder holds a finished embedding."""
    return (folder / FEATURES).is_file() and (folder / FACTS).is_file()


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Writes `embedding.json`."""
    write_text(folder / FACTS, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def publish(made: Path, target: Path, own: tuple[str, ...]) -> None:
    """Moves what was made to where it belongs; of old files only those of the same names go.

    Args:
        made: The folder, complete.
        target: A folder that may be there.
        own: Names of all that could be in it.
    """
    if not target.exists() or not any(target.iterdir()):
        made.replace(target)
        return
    for name in own:
        old, new = target / name, made / name
        if old.is_dir():
            shutil.rmtree(old)
        if new.exists():
            new.replace(old)
        else:
            old.unlink(missing_ok=True)
    shutil.rmtree(made)


log = logging.getLogger(__name__)

DERIVED = ("kmeans", "hdbscan", "outlier", "rank", "distance")
_PARTS = ("tile", "page", "array")
_SHOWN = 5


@dataclass(frozen=True)
class _Named:
    """One row of an expert's CSV.

    Attributes:
        line: Of the file.
        name: Path or file name.
        part: Tile, page and array, "" = all of the file.
        values: Label by column.
    """

    line: int
    name: str
    part: tuple[str, ...]
    values: dict[str, str]


class Finder:
    """Finds images of an embedding by path, by the end of a path, or by file name.

    Args:
        stored: The embedding.
    """

    def __init__(self, stored: StoredEmbedding) -> None:
        self._paths = [clean_name(path) for path in stored.columns["path"]]
        self._files = [clean_name(file) for file in stored.images.files()]
        blank = [""] * len(stored)
        self._parts = list(zip(*(stored.columns.get(name, blank) for name in _PARTS), strict=True))
        # Pages and lists of neighbours call a part of a file by its path and what follows.
        names = shown_names({"path": self._files, **_parts_of(stored)})
        self._shown = {f"/{name}": row for row, name in enumerate(names)}
        self._by_name: dict[str, list[int]] = {}
        for row, file in enumerate(self._files):
            self._by_name.setdefault(PurePosixPath(file).name, []).append(row)

    def find(self, name: str, part: tuple[str, ...] = ("", "", "")) -> list[int]:
        """Rows of the images that a name means, more than one for several parts of one file.

        Raises:
            LookupError: With `unknown` or `ambiguous`.
        """
        wanted = clean_name(name).replace("\\", "/")
        near = self._by_name.get(PurePosixPath(wanted).name, [])
        rows = [row for row in near if wanted in (self._paths[row], self._files[row])]
        if not rows:
            rows = [row for row in near if f"/{self._files[row]}".endswith(f"/{wanted}")]
        if not rows and any(any(parts) for parts in self._parts):
            rows = [row for shown, row in self._shown.items() if shown.endswith(f"/{wanted}")]
        rows = [row for row in rows if _fits(part, self._parts[row])]
        if not rows:
            raise LookupError("unknown")
        if len({self._files[row] for row in rows}) > 1:
            raise LookupError("ambiguous")
        return rows


def _parts_of(stored: StoredEmbedding) -> dict[str, list[str]]:
    return {name: stored.columns[name] for name in _PARTS if name in stored.columns}


def _fits(asked: tuple[str, ...], own: tuple[str, ...]) -> bool:
    """True if an image is the part that is asked for; a page that has no number is the first."""
    return all(
        a in ("", o) or (column == "page" and (a, o) == ("0", ""))
        for column, a, o in zip(_PARTS, asked, own, strict=True)
    )


def find_all(finder: Finder, names: Iterable[str], flag: str) -> list[int]:
    """The first row of each name.

    Raises:
        UserError: A name is unknown or ambiguous.
    """
    rows, wrong = [], {"unknown": [], "ambiguous": []}  # type: tuple[list[int], dict[str, list[str]]]
    for name in names:
        try:
            rows.append(finder.find(name)[0])
        except LookupError as error:
            wrong[str(error)].append(name)
    _refuse(wrong, f"--{flag}")
    return rows


def join_labels(stored: StoredEmbedding, file: Path) -> dict[str, list[str]]:
    """The columns of an expert's CSV, a text an image, "" = not known.

    A column `label` becomes `expert_label`; columns that simclr-embed writes itself are not
    looked at. A name of a file of which there are several tiles or pages means all of them, unless
    columns `tile`, `page` and `array` say which. Columns that an earlier file gave are completed.

    Args:
        stored: The embedding.
        file: The CSV.

    Returns:
        The columns of this file.

    Raises:
        UserError: No such file, no labels in it, names that are unknown or ambiguous, or two
            labels for one image.
    """
    # A column array speaks of images only where a file gives several.
    used = {"tile", "page", *_parts_of(stored)}
    columns, rows = _read(file, used)
    finder = Finder(stored)
    wrong: dict[str, list[str]] = {"unknown": [], "ambiguous": []}
    texts: dict[str, dict[int, str]] = {column: {} for column in columns}
    for row in rows:
        try:
            found = finder.find(row.name, row.part)
        except LookupError as error:
            wrong[str(error)].append(f"{row.name} (line {row.line})")
            continue
        for column, value in row.values.items():
            for image in found if value else ():
                if texts[column].setdefault(image, value) != value:
                    raise UserError(
                        f"--join={file}, line {row.line}: {row.name} has two labels in {column}, "
                        f"{texts[column][image]} and {value}"
                    )
    _refuse(wrong, f"--join={file}")
    before = [""] * len(stored)
    joined = {}
    for column, new in texts.items():
        old = stored.columns.get(column, before)
        joined[column] = [new.get(image, text) for image, text in enumerate(old)]
        log.info("%s: %d of %d images have a label", column, sum(map(bool, joined[column])),
                 len(stored))  # fmt: skip
        for problem in name_problems({text for text in joined[column] if text}, "label"):
            log.warning("%s: %s", column, problem)
    return joined


def _read(file: Path, used: Set[str]) -> tuple[list[str], list[_Named]]:
    """Columns of labels, and rows."""
    table = read_csv(file, source=f"--join={file}")
    key, labels = _columns(table, used)
    names = [clean_name(row[key]) for row in table.rows]
    blank = [""] * len(names)
    parts = zip(
        *((table.texts(name) if name in used else None) or blank for name in _PARTS), strict=True
    )
    rows = [
        _Named(
            line, name, part, {_called(title): clean_name(row[at]) for at, title in labels.items()}
        )
        for line, name, part, row in zip(table.lines, names, parts, table.rows, strict=True)
    ]
    return [_called(title) for title in labels.values()], [row for row in rows if row.name]


def _columns(table: CsvTable, used: Set[str]) -> tuple[int, dict[int, str]]:
    """Position of the column of names, and titles of those of labels by position."""
    key = table.position(*PATH_COLUMNS)
    assert key is not None  # read_csv has looked
    own = {*KNOWN, *DERIVED, "reading", ROOT, RELATIVE_ROOT} - {"label", *_PARTS} | used
    labels, ignored = {}, []
    for position, title in enumerate(table.header):
        if position == key or not title:
            continue
        if title in own:
            ignored.append(title)
        else:
            table.position(title)  # complains of two
            labels[position] = title
    if ignored:
        log.info("%s: columns not used: %s", table.source, ", ".join(ignored))
    if not labels:
        raise UserError(f"{table.source}: has no column of labels beside {table.header[key]}")
    return key, labels


def _called(name: str) -> str:
    return "expert_label" if name == "label" else name


def _refuse(wrong: dict[str, list[str]], what: str) -> None:
    parts = []
    for why, names in wrong.items():
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            mend = "" if why == "unknown" else ": more than one file is called so, give its path"
            parts.append(f"{why}: {', '.join(names[:_SHOWN])}{more}{mend}")
    if parts:
        raise UserError(f"{what}: names of images that are {'; '.join(parts)}")
