"""The warnings of a run: whatever its packages log as one, kept in a file of the run's folder.

A warning in a terminal is gone with the terminal. `warnings.csv` has one row for each: the step at
which it was said (0 = before the first one), its kind, if whoever said it named one, and the text.
"""

import csv
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PACKAGES = ("data_prep", "simclr_tf", "finetune")
_COLUMNS = ("step", "kind", "message")
_ATTRIBUTE = "run_warning"  # of a log record


@dataclass(frozen=True)
class RunWarning:
    """One warning.

    Attributes:
        step: Steps taken when it was said; 0 = before the first.
        kind: What it is about, such as `chance`; empty = not named.
        message: One sentence or more.
    """

    step: int
    kind: str
    message: str

    def __str__(self) -> str:
        return f"step {self.step}: {self.message}" if self.step else self.message


def warn(log: logging.Logger, warning: RunWarning) -> None:
    """Logs a warning together with its step and kind.

    Args:
        log: Of the module that warns.
        warning: What it says.
    """
    log.warning("%s", warning, extra={_ATTRIBUTE: warning})


class RunWarnings(logging.Handler):
    """Takes note of every warning logged while it listens.

    Attributes:
        found: The warnings so far, in order, each once.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[RunWarning] = []
        self._path: Path | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Notes a record of the level WARNING."""
        if record.levelno != logging.WARNING:
            return
        said = getattr(record, _ATTRIBUTE, None)
        warning = said if isinstance(said, RunWarning) else RunWarning(0, "", record.getMessage())
        if warning in self.found:
            return
        self.found.append(warning)
        if self._path is not None:
            _append(self._path, [warning])

    def keep_in(self, path: Path) -> None:
        """Writes what was noted, and from now on every further warning at once.

        Rows of an earlier part of the run stay; what it has said already is not repeated.

        Args:
            path: `warnings.csv` of the run's folder.
        """
        known = read_warnings(path)
        _append(path, [warning for warning in self.found if warning not in known])
        self.found = [*known, *(w for w in self.found if w not in known)]
        self._path = path


@contextmanager
def noting_warnings() -> Iterator[RunWarnings]:
    """Listens to the warnings of this project's packages inside the block."""
    handler = RunWarnings()
    loggers = [logging.getLogger(name) for name in _PACKAGES]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield handler
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def latest(warnings: Sequence[RunWarning]) -> tuple[RunWarning, ...]:
    """The last warning of each kind, and all that have none, by step."""
    last = {w.kind: i for i, w in enumerate(warnings)}
    kept = (w for i, w in enumerate(warnings) if not w.kind or last[w.kind] == i)
    return tuple(sorted(kept, key=lambda w: w.step))


def _append(path: Path, warnings: Iterable[RunWarning]) -> None:
    rows = [(w.step, w.kind, w.message) for w in warnings]
    if not rows:
        return
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(_COLUMNS)
        writer.writerows(rows)


def read_warnings(path: Path) -> list[RunWarning]:
    """The warnings that a run has kept, in order; none if there is no such file.

    Args:
        path: `warnings.csv` of the run's folder.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    whole = [row for row in rows[1:] if len(row) == len(_COLUMNS) and row[0].isdigit()]
    return [RunWarning(int(step), kind, message) for step, kind, message in whole]
