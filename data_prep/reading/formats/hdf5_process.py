"""HDF5 files, opened and read by a process of its own.

The HDF5 library checks little of what a file says: a damaged file makes it free memory twice, or
read what is not there. That ends the process, at once or a good while later. So the library works
in a child process, from which shapes and values come, and a file on which it dies twice is
refused like any other damaged file. The library does one thing at a time anyway.
"""

import atexit
import contextlib
import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np

from data_prep.errors import UserError, damage_refused
from data_prep.reading.child_process import (
    BrokenChildError,
    ChildProcess,
    own_streams,
    serve_frames,
)
from data_prep.reading.formats import hdf5
from data_prep.reading.formats.source import FileSource
from data_prep.reading.limits import ReadLimits
from data_prep.reading.spec import FOLLOW, Reading, parse_reading

_SECONDS = 600.0
_CANNOT = "HDF5 cannot be read"


class _Library:
    """The child process, started with the first file; after a fork each process has its own.

    Attributes:
        apart: True if the library works in a child process, False if in this one.
    """

    def __init__(self) -> None:
        self.apart = True
        self._lock = threading.Lock()
        self._child: ChildProcess | None = None
        self._owner = 0

    def ask(self, facts: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        """Puts a question to the child and returns its answer.

        Raises:
            UserError: The child cannot answer, or reports an error in the file.
        """
        with self._lock:
            answer, data = self._exchange(facts, content)
            if answer.get("damaged"):  # who knows what the library has broken
                self._stop()
        if "error" in answer:
            raise UserError(answer["error"])
        return answer, data

    def _exchange(self, facts: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        for _ in range(2):  # a file before this one may be to blame for the first time
            try:
                return self._running().exchange(facts, content, _SECONDS)
            except BrokenChildError as error:
                self._stop()
                if error.late:
                    raise UserError(f"takes more than {_SECONDS:g} s to read") from None
        raise UserError(f"{_CANNOT} (damaged: it crashes the HDF5 library)")

    def _running(self) -> ChildProcess:
        if self._child is None or self._owner != os.getpid() or not self._child.runs():
            self._owner, self._child = os.getpid(), ChildProcess(__name__)
            atexit.register(self._child.stop)
        return self._child

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child:
            atexit.unregister(child.stop)
            child.stop()


LIBRARY = _Library()


def work_here() -> None:
    """Makes the library work in this process from now on, which may be ended by it."""
    LIBRARY.apart = False


class _Array:
    """A data set that the child reads.

    Attributes:
        shape: Of the array.
        dtype: Of its values.
    """

    def __init__(self, facts: dict[str, Any], content: bytes) -> None:
        self._facts, self._content = facts, content
        said, _ = LIBRARY.ask(facts, content)
        self.shape = tuple(said["shape"])
        self.dtype = np.dtype(said["dtype"])

    def __getitem__(self, index: tuple[int | slice, ...]) -> np.ndarray:
        parts = [[part.start, part.stop] if isinstance(part, slice) else part for part in index]
        said, data = LIBRARY.ask({**self._facts, "index": parts}, self._content)
        return np.frombuffer(data, self.dtype).reshape(said["shape"])


@contextmanager
def open_array(source: FileSource, reading: Reading, limits: ReadLimits) -> Iterator[Any]:
    """The named data set, or the only one of numbers with two axes or more.

    Args:
        source: The file.
        reading: What is declared of it.
        limits: Bounds on the memory that a chunk of it may take.

    Raises:
        UserError: As `hdf5.open_array`, or the file crashes the HDF5 library.
    """
    if not LIBRARY.apart:
        with hdf5.open_array(source, reading, limits) as array:
            yield array
        return
    facts: dict[str, Any] = {"reading": str(reading), "limits": asdict(limits)}
    if isinstance(source, str):
        status = os.stat(source)
        facts |= {"path": os.path.abspath(source), "stamp": [status.st_mtime_ns, status.st_size]}
        content = b""
    else:
        source.seek(0)
        content = source.read()
    yield _Array(facts, content)


class _Kept:
    """The data set that was opened last, which the next question is often about."""

    def __init__(self) -> None:
        self._opened, self._key = ExitStack(), ""
        self._array: Any = None

    def open(self, facts: dict[str, Any], content: bytes) -> Any:
        """The data set of a file; only those of named files are kept open."""
        key = json.dumps(facts, sort_keys=True)
        if key != self._key or content:
            self.close()
            reading, limits = parse_reading(facts["reading"]), ReadLimits(**facts["limits"])
            source = facts.get("path") or io.BytesIO(content)
            self._array = self._opened.enter_context(hdf5.open_array(source, reading, limits))
            # HDF5 itself opens a file whose links are followed, and may lock it.
            self._key = "" if content or reading.links == FOLLOW else key
        return self._array

    def close(self) -> None:
        """Closes it."""
        self._key = ""
        with contextlib.suppress(Exception):
            self._opened.close()

    def answer(self, facts: dict[str, Any], content: bytes) -> tuple[Any, ...]:
        """Shape and type of a data set; with `index`, the values there."""
        answer = self._answer(facts.pop("index", None), facts, content)
        if not self._key:
            self.close()
        return answer

    def _answer(self, index: Any, facts: dict[str, Any], content: bytes) -> tuple[Any, ...]:
        try:
            with damage_refused(_CANNOT):
                array = self.open(facts, content)
                if index is None:
                    return ({"shape": array.shape, "dtype": array.dtype.str},)
                parts = tuple(slice(*part) if isinstance(part, list) else part for part in index)
                values = np.ascontiguousarray(array[parts])
                return {"shape": values.shape}, values.reshape(-1).view(np.uint8).data
        except UserError as error:
            self._key = ""
            return ({"error": str(error), "damaged": error.__cause__ is not None},)


def main() -> None:
    """Answers questions from standard input until it ends."""
    work_here()
    serve_frames(*own_streams(), _Kept().answer)
