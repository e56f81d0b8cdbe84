"""The warnings of a run, kept in its folder so that its pages can show them.

What is only in a terminal is gone when the numbers are read. While `RunWarnings` listens, whatever
the packages log as a warning is kept; once a run's folder is known it lies in

    warnings.json   {"alarms": [sentences], "warnings": [sentences, in order, alarms among them]}

where a run that goes on adds to it. Alarms say that the numbers of the run cannot be trusted; pages
begin with them.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data_prep.files import write_text

WARNINGS_FILE = "warnings.json"

_PACKAGES = ("data_prep", "simclr_tf", "finetune")


class RunWarnings(logging.Handler):
    """Keeps every warning once; see `listening`."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: list[str] = []
        self._alarms: list[str] = []
        self._folder: Path | None = None

    @contextmanager
    def listening(self) -> Iterator["RunWarnings"]:
        """Keeps the warnings of this package while the block runs."""
        loggers = [logging.getLogger(name) for name in _PACKAGES]
        for each in loggers:
            each.addHandler(self)
        try:
            yield self
        finally:
            for each in loggers:
                each.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a warning, and writes it if the folder is known."""
        self.add([record.getMessage()])

    def alarm(self, texts: Sequence[str]) -> None:
        """Keeps sentences that say why the numbers cannot be trusted."""
        self._alarms += [text for text in dict.fromkeys(texts) if text not in self._alarms]
        self.add(texts)
        self._write()

    def add(self, texts: Sequence[str]) -> None:
        """Keeps sentences that are not kept yet."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if not new:
            return
        self._texts += new
        self._write()

    def keep_in(self, folder: Path) -> None:
        """Writes to a run's folder from now on, after what an earlier part of the run left there.

        Args:
            folder: Of the run; it is there.
        """
        self._texts = list(dict.fromkeys([*read_warnings(folder), *self._texts]))
        self._alarms = list(dict.fromkeys([*read_alarms(folder), *self._alarms]))
        self._folder = folder
        self._write()

    def _write(self) -> None:
        if self._folder is not None and (self._texts or (self._folder / WARNINGS_FILE).exists()):
            facts = {"alarms": self._alarms, "warnings": self._texts}
            text = json.dumps(facts, indent=2, ensure_ascii=False)
            write_text(self._folder / WARNINGS_FILE, text + "\n")


def read_warnings(folder: Path) -> tuple[str, ...]:
    """The warnings of the run in a folder; none where nothing was kept."""
    return _read(folder, "warnings")


def read_alarms(folder: Path) -> tuple[str, ...]:
    """Why the numbers of the run in a folder cannot be trusted; nothing where nothing was kept."""
    return _read(folder, "alarms")


def _read(folder: Path, kind: str) -> tuple[str, ...]:
    file = folder / WARNINGS_FILE
    if not file.is_file():
        return ()
    try:
        return tuple(map(str, json.loads(file.read_text(encoding="utf-8"))[kind]))
    except (ValueError, KeyError, TypeError):
        return (f"{file} cannot be read: what the run warned of is not known",)


def sentence(text: str) -> str:
    """A warning as a sentence of a page."""
    text = f"{text[0].upper()}{text[1:]}" if text else text
    return text if text.endswith((".", "!", "?")) else f"{text}."
