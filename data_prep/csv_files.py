"""CSV files: the reader of tables that users give, and the writer of tables that they get.

Spreadsheets run a cell that begins like a formula, so a class named `=HYPERLINK(...)` would be live
in every table of its images. The writer puts an apostrophe before such texts, as OWASP advises
against CSV injection; numbers stay as they are. The reader takes it away again, so any text comes
back as it was written.

The reader takes what spreadsheets and scripts of all systems write: commas, semicolons or tabs
(`sep=;` as well), UTF-8 with or without a mark, UTF-16, all line ends, line breaks in quotes. A
file that can be read in two ways is refused, with the line and how to mend it.
"""

import codecs
import csv
import io
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.errors import UserError
from data_prep.names import clean_name
from data_prep.storage import write_text

_LOGGER = logging.getLogger(__name__)

PATH_COLUMNS = ("path", "file", "filename", "file_name", "name", "image")
"""Columns that may name the images, the first that is there counts."""

_FORMULA = re.compile(r"'*\s*[\t\r\n=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|nan)")
_QUOTED = re.compile(r'[,;"\t\r\n]')
_SEP_LINE = re.compile(r'"?sep=(.)"?[ ,;\t]*(?:\r\n|\r|\n|\Z)', re.IGNORECASE)
_DELIMITERS = ",;\t|"
_LARGEST_CELL = 16 * 1024 * 1024
_SHOWN = 3


def csv_line(cells: Iterable[object]) -> str:
    """One row as text with its line end.

    Args:
        cells: Texts are protected against being run as formulas; None is an empty cell; all else is
            written as `str` does.
    """
    texts = [_protected(c) if isinstance(c, str) else "" if c is None else str(c) for c in cells]
    if texts == [""]:
        return '""\n'
    return ",".join(map(_cell, texts)) + "\n"


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as the text of a CSV file, the header first; see `csv_line`."""
    return "".join(map(csv_line, rows))


def write_csv(path: str | os.PathLike[str], rows: Iterable[Iterable[object]]) -> None:
    """Writes a CSV file, whole or not at all; see `csv_line`.

    Args:
        path: The file; its folder must exist.
        rows: The header first.
    """
    write_text(path, csv_text(rows))


def _protected(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _unprotected(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _cell(text: str) -> str:
    # Semicolons and tabs as well: spreadsheets of some languages split at them.
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


@dataclass(frozen=True)
class CsvTable:
    """A CSV file that was read.

    Attributes:
        source: The file, as messages name it.
        header: Titles of the columns, in their one form (`names.clean_name`), case kept.
        rows: Cells as they were written, a row as long as the header; empty rows are left out.
        lines: Line of the file in which each row begins, from 1.
    """

    source: str
    header: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    _lowered: dict[str, list[int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lowered: dict[str, list[int]] = {}
        for position, name in enumerate(self.header):
            lowered.setdefault(name.casefold(), []).append(position)
        object.__setattr__(self, "_lowered", lowered)

    def place(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.source}, line {self.lines[row]}"

    def position(self, *names: str) -> int | None:
        """Position of the first of these columns that is there, whatever its case; None if none is.

        Raises:
            UserError: Two columns have the name.
        """
        for name in names:
            found = self._lowered.get(name.casefold(), [])
            if len(found) > 1:
                titles = " and ".join(repr(self.header[p]) for p in found)
                raise UserError(
                    f"{self.source}, line {self.lines_of_header}: there are {len(found)} columns"
                    f" {name!r} ({titles}, the {_ordinals(found)}); rename or remove all but one"
                )
            if found:
                return found[0]
        return None

    @property
    def lines_of_header(self) -> int:
        """Line of the titles: 1 but after a line `sep=;`."""
        return self.lines[0] - 1 if self.lines and self.lines[0] == 3 else 1

    def texts(self, *names: str) -> list[str] | None:
        """Cells of a column in their one form; None if no such column is there."""
        position = self.position(*names)
        return None if position is None else [clean_name(row[position]) for row in self.rows]

    def check_titles(self) -> None:
        """Raises UserError if any two columns have the same title."""
        for name in self.header:
            if name:
                self.position(name)


def read_csv(
    path: str | os.PathLike[str], wanted: Sequence[str] = PATH_COLUMNS, *, source: str = ""
) -> CsvTable:
    """Reads a CSV file that a user gives.

    Args:
        path: The file.
        wanted: Titles of which one must be there, and which tell how columns are separated; none =
            any will do.
        source: The file as messages shall name it, such as `--join=labels.csv`; its path if empty.

    Raises:
        UserError: The file cannot be read as a table of such columns: one line that says where and
            how to mend it.
    """
    source = source or os.fspath(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        what = "not found" if isinstance(error, FileNotFoundError) else error.strerror
        raise UserError(f"{source}: {what}") from None
    text = _decoded(data, source)
    skipped, delimiter = 0, ""
    if match := _SEP_LINE.match(text):
        delimiter, text, skipped = match[1], text[match.end() :], 1
    delimiter = delimiter or _delimiter(text, wanted)
    header, rows, lines = _parsed(text, delimiter, source, skipped)
    titles = tuple(map(clean_name, header))
    table = CsvTable(source, titles, rows, lines)
    if wanted and table.position(*wanted) is None:
        others = f" (or {', '.join(wanted[1:])})" if len(wanted) > 1 else ""
        raise UserError(
            f"{source} needs a column {wanted[0]!r}{others}; its first line is"
            f" {delimiter.join(header)[:80]!r}; name the columns there"
        )
    return table


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Reads a CSV that `write_csv` wrote: a dictionary a row, by the exact titles.

    Raises:
        FileNotFoundError: There is none.
        UserError: It is damaged.
    """
    header, rows = read_written(path)
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_written(path: str | os.PathLike[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV that `write_csv` wrote.

    Raises:
        FileNotFoundError: There is none.
        UserError: It is damaged.
    """
    source = os.fspath(path)
    header, rows, _ = _parsed(_decoded(Path(path).read_bytes(), source), ",", source, 0, keep=True)
    return header, rows


def _decoded(data: bytes, source: str) -> str:
    if data[:4] == b"PK\3\4" or data[:4] == b"\xd0\xcf\x11\xe0":
        raise UserError(f"{source}: is a spreadsheet, not a CSV file; save it as 'CSV UTF-8'")
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif data[1:2] == b"\0" and data[:1] != b"\0":
        encoding = "utf-16-le"
    elif data[:1] == b"\0" and data[1:2] not in (b"", b"\0"):
        encoding = "utf-16-be"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{source}, line {line}: is not a CSV file in UTF-8 (byte 0x{data[error.start]:02x});"
            " save it as 'CSV UTF-8'"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{source}, line {line}: is not a CSV file in UTF-8: it holds a zero byte")
    return text


def _delimiter(text: str, wanted: Sequence[str]) -> str:
    """The separator under which the first line holds the most of the wanted titles, or cells."""
    first = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    names = {name.casefold() for name in wanted}

    def titles(delimiter: str) -> tuple[int, int]:
        try:
            cells = next(csv.reader([first], delimiter=delimiter), [])
        except csv.Error:
            return 0, 0
        return len({clean_name(cell).casefold() for cell in cells} & names), len(cells)

    return max(_DELIMITERS, key=titles)


def _parsed(
    text: str, delimiter: str, source: str, skipped: int, *, keep: bool = False
) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows and the lines where rows begin.

    Args:
        text: The file's text.
        delimiter: Between cells.
        source: For messages.
        skipped: Lines before the text.
        keep: Rows of empty cells are rows.
    """
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    empty: list[int] = []
    before = csv.field_size_limit(_LARGEST_CELL)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1 + skipped
            try:
                cells = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                raise UserError(
                    f"{source}, line {line}: the cells cannot be told apart ({error}): a quotation"
                    " mark is not closed, or not doubled within quotation marks"
                ) from None
            if not header:
                if any(cell.strip() for cell in cells):
                    header = [_unprotected(cell) for cell in cells]
                continue
            if len(cells) > len(header) and not any(c.strip() for c in cells[len(header) :]):
                del cells[len(header) :]  # spreadsheets pad with separators
            if not cells or (not keep and not any(map(clean_name, cells))):
                if len(cells) > 1:
                    empty.append(line)
                continue
            if len(cells) != len(header):
                raise UserError(f"{source}, line {line}: {_wrong_length(cells, header, delimiter)}")
            rows.append([_unprotected(cell) for cell in cells])
            lines.append(line)
    finally:
        csv.field_size_limit(before)
    if empty:
        some = ", ".join(map(str, empty[:_SHOWN])) + (", ..." if len(empty) > _SHOWN else "")
        _LOGGER.warning("%s: %d lines without any value are left out (%s)", source, len(empty),
                        f"line {some}")  # fmt: skip
    return header, rows, lines


def _wrong_length(cells: Sequence[str], header: Sequence[str], delimiter: str) -> str:
    count = f"has {len(cells)} cell{'s' * (len(cells) != 1)}, the first line {len(header)}"
    if len(cells) > len(header):
        return f"{count}; put a value that holds {delimiter!r} into quotation marks"
    return f"{count}; add what is missing, or {delimiter!r} for each value that is not known"


def _ordinals(positions: Sequence[int]) -> str:
    return " and ".join(f"{position + 1}." for position in positions)


def duplicates(texts: Iterable[str]) -> list[str]:
    """Texts that occur more than once, in order."""
    return [text for text, number in Counter(texts).items() if number > 1]
