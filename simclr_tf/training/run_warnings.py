"""The warnings of a run: whatever its packages log as one, kept in a file of the run's folder.

A warning in a terminal is gone with the terminal. `warnings.csv` has one row for each: the step at
which it was said (0 = before the first one), its kind, if whoever said it named one, and the text.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_prep.csv_files import read_written, write_csv

_PACKAGES = ("data_prep", "simclr_tf", "finetune")
_COLUMNS = ("step", "kind", "message")
_ATTRIBUTE = "run_warning"  # of a log record

WARNINGS_FILE = "warnings.csv"
ALARM = "alarm"
"""The kind of warnings that say why the numbers of a run cannot be trusted; pages begin with them.
"""


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
        self._add(
            [said if isinstance(said, RunWarning) else RunWarning(0, "", record.getMessage())]
        )

    def alarm(self, texts: Iterable[str]) -> None:
        """Notes sentences that say why the numbers of the run cannot be trusted."""
        alarms = [RunWarning(0, ALARM, text) for text in texts]
        told = {alarm.message for alarm in alarms}
        self.found = [w for w in self.found if w.kind or w.message not in told]
        self._add(alarms)

    def keep_in(self, path: Path) -> None:
        """Writes what was noted, and from now on every further warning at once.

        What an earlier part of the run has left there stays, and is not repeated.

        Args:
            path: `warnings.csv` of the run's folder.
        """
        now, self.found = self.found, read_warnings(path)
        self._add(now)
        self._path = path
        self._write()

    def _add(self, warnings: Sequence[RunWarning]) -> None:
        alarms = {w.message for w in self.found if w.kind == ALARM}
        for warning in dict.fromkeys(warnings):
            # A process that goes on says of the step where it does so what the one before has said.
            if warning.step and warning.kind:
                same = (warning.step, warning.kind)
                self.found = [w for w in self.found if (w.step, w.kind) != same]
            if warning not in self.found and (warning.kind or warning.message not in alarms):
                self.found.append(warning)
        self._write()

    def _write(self) -> None:
        if self._path is None or self.found == read_warnings(self._path):
            return
        write_csv(self._path, [_COLUMNS, *((w.step, w.kind, w.message) for w in self.found)])


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
    """The last warning of each kind, and all alarms and warnings without a kind, by step."""
    last = {w.kind: i for i, w in enumerate(warnings)}
    kept = (w for i, w in enumerate(warnings) if w.kind in ("", ALARM) or last[w.kind] == i)
    return tuple(sorted(kept, key=lambda w: w.step))


def read_warnings(path: Path) -> list[RunWarning]:
    """The warnings that a run has kept, in order; none if there is no such file.

    Args:
        path: `warnings.csv` of the run's folder.
    """
    try:
        header, rows = read_written(path)
        if tuple(header) == _COLUMNS:
            return [RunWarning(int(step), kind, message) for step, kind, message in rows]
    except FileNotFoundError:
        return []
    except ValueError:
        pass  # said below
    return [RunWarning(0, "", f"{path} is damaged: what the run warned of is not known")]


def read_alarms(path: Path) -> tuple[str, ...]:
    """Sentences on why the numbers of a run cannot be trusted; empty if none were kept.

    Args:
        path: `warnings.csv` of the run's folder.
    """
    return tuple(w.message for w in read_warnings(path) if w.kind == ALARM)
