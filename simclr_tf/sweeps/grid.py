"""The grid of a sweep: values by flag, their product, rows of a table, names of runs, metrics.

A row holds the flags of one run that are its own, as text: `{"method": "byol", "seed": "1"}`.
"""

import hashlib
import itertools
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.csv_files import read_csv
from data_prep.errors import UserError
from data_prep.names import clean_name

GridRow = dict[str, str]

_LONGEST_NAME = 120  # bytes; file systems take 255
_NOT_IN_A_NAME = re.compile(r"[^\w.,=+-]")


def grid_rows(vary: Sequence[str], table: str | os.PathLike[str] = "") -> list[GridRow]:
    """The rows of a sweep: those of the table, each with every combination of the varied values.

    Args:
        vary: Texts `FLAG=VALUE,VALUE,...`.
        table: CSV or TOML file, see `read_table`; empty = none.

    Raises:
        UserError: Nothing is varied, a flag is given twice, or the table cannot be read.
    """
    values = dict[str, tuple[str, ...]]()
    for text in vary:
        name, several = _parse_vary(text)
        if name in values:
            raise UserError(
                f"--{name} is varied twice; give its values together", setting="vary", value=text
            )
        values[name] = several
    rows = read_table(table) if table else [{}]
    for name in values:
        if any(name in row for row in rows):
            raise UserError(
                f"--{name} is a column of {table} too; keep one of them", setting="vary"
            )
    products = [
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    ]
    found = [row | chosen for row in rows for chosen in products]
    if found == [{}]:
        raise UserError("nothing is varied: give --vary=FLAG=VALUE,VALUE,... or --grid=FILE")
    return found


def _parse_vary(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, values = text.lstrip("-").partition("=")
    several = tuple(value.strip() for value in values.split(","))
    if not equals or not name.strip() or "" in several:
        raise UserError("give FLAG=VALUE,VALUE,..., such as seed=0,1,2", setting="vary", value=text)
    if len(set(several)) < len(several):
        raise UserError("a value is given twice", setting="vary", value=text)
    return name.strip(), several


def read_table(path: str | os.PathLike[str]) -> list[GridRow]:
    """A table whose columns are flags and whose rows are runs.

    A CSV has the flags' names in its first line; an empty cell leaves the flag as it is for all. A
    TOML file has one `[[run]]` a row, with `flag = value` lines.

    Raises:
        UserError: The file is missing, is neither, or holds no row.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("there is no such file", setting="grid", value=path)
    readers = {".csv": _read_csv, ".toml": _read_toml}
    if path.suffix.lower() not in readers:
        raise UserError("must end in .csv or .toml", setting="grid", value=path)
    try:
        rows = readers[path.suffix.lower()](path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", setting="grid", value=path) from None
    if not rows:
        raise UserError("holds no row; each row is a run", setting="grid", value=path)
    return rows


def _read_csv(path: Path) -> list[GridRow]:
    table = read_csv(path, (), source=f"--grid={path}")
    header = [name.lstrip("-") for name in table.header]
    if "" in header or len(set(header)) < len(header):
        raise UserError(
            "every column needs a flag's name of its own as its title", setting="grid", value=path
        )
    rows = []
    for line in table.rows:
        cells = zip(header, map(clean_name, line), strict=True)
        rows.append({name: value for name, value in cells if value})
    return rows


def _read_toml(path: Path) -> list[GridRow]:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    tables = content.get("run")
    if set(content) != {"run"} or not isinstance(tables, list):
        raise UserError("give one [[run]] a row, and nothing else", setting="grid", value=path)
    return [{name: _as_text(value) for name, value in table.items()} for table in tables]


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_as_text, value)) if isinstance(value, list) else str(value)


def row_arguments(row: Mapping[str, str]) -> tuple[str, ...]:
    """A row as arguments of the command line."""
    return tuple(f"--{name}={value}" for name, value in row.items())


def differing(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The flags that are not the same in all rows, in order of appearance."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if len({row.get(name) for row in rows}) > 1]


def run_names(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Names of the runs: the flags that differ, such as `method=byol,seed=1`.

    Names are fit for folders; values that are not, or are too long, end in a hash.
    """
    names = differing(rows) if len(rows) > 1 else list(rows[0])
    return [_name(row, names) for row in rows]


def setting_name(row: Mapping[str, str], names: Sequence[str]) -> str:
    """Some flags of a row, for people."""
    return ", ".join(f"{name}={row[name]}" for name in names if name in row)


def _name(row: Mapping[str, str], names: Sequence[str]) -> str:
    text = ",".join(f"{name}={row[name]}" for name in names if name in row) or "common"
    safe = _NOT_IN_A_NAME.sub("-", text).lstrip(".")
    if safe == text and len(text.encode()) <= _LONGEST_NAME:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{safe.encode()[: _LONGEST_NAME - 9].decode(errors='ignore')}-{digest}"


SCORES = ("knn_accuracy", "linear_probe_accuracy")

# What tables can be sorted by, and whether large values come first.
SORT_BY = {
    "knn_accuracy": True,
    "linear_probe_accuracy": True,
    "loss": False,
    "effective_rank": True,
    "seconds": False,
}
