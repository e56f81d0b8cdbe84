"""Labels that an expert wrote into a CSV, joined to an embedding by path or file name."""

import logging
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.csv_files import PATH_COLUMNS, CsvTable, read_csv
from data_prep.errors import UserError
from data_prep.manifest.places import shown_names
from data_prep.manifest.root import RELATIVE_ROOT, ROOT
from data_prep.names import clean_name, name_problems
from simclr_tf.embedding.stored import Stored
from simclr_tf.embedding.table import KNOWN

log = logging.getLogger(__name__)

DERIVED = ("kmeans", "hdbscan", "outlier", "rank", "distance")
_PARTS = ("tile", "page", "array")
_SHOWN = 5


@dataclass(frozen=True)
class _Named:
    """What a row of the CSV says.

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

    def __init__(self, stored: Stored) -> None:
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


def _parts_of(stored: Stored) -> dict[str, list[str]]:
    return {name: stored.columns[name] for name in _PARTS if name in stored.columns}


def _fits(asked: tuple[str, ...], own: tuple[str, ...]) -> bool:
    """Whether an image is the part that is asked for; a page that has no number is the first."""
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


def join_labels(stored: Stored, file: Path) -> dict[str, list[str]]:
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
