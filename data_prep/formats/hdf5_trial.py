"""The first opening of an HDF5 file, in a process of its own.

The HDF5 library looks at little of what it is told: a damaged file makes it free memory twice, or
read what is not there, and ends the process. So a file is tried in a child process, once, before
it is opened here.
"""

import atexit
import contextlib
import io
import os
import threading
from dataclasses import replace
from functools import lru_cache
from typing import Any

from data_prep.child_process import BrokenChildError, ChildProcess, own_streams, serve_frames
from data_prep.errors import UserError
from data_prep.formats.source import FileSource
from data_prep.reading import Reading, parse_reading

_SECONDS = 300.0
_KEPT = 2**18  # files whose trial is remembered


class _Trials:
    """The child process, started with the first file; after a fork the new process has its own."""

    def __init__(self) -> None:
        self.wanted = True
        self._lock = threading.Lock()
        self._child: ChildProcess | None = None
        self._owner = 0

    def try_out(self, path: str, content: bytes, reading: str) -> str:
        """Has a file opened by the child.

        Returns:
            What is wrong with the file if the child did not survive it, else "".
        """
        with self._lock:
            child = self._running()
            if child is None:
                return ""
            try:
                child.exchange({"path": path, "reading": reading}, content, _SECONDS)
            except BrokenChildError as error:
                child.stop()
                self._child = None
                if error.late:
                    return f"takes more than {_SECONDS:g} s to open; name the array, --array_name"
                return "HDF5 cannot be read (damaged: it crashes the HDF5 library)"
        return ""

    def _running(self) -> ChildProcess | None:
        if self._child is None or self._owner != os.getpid() or not self._child.runs():
            self._child, self._owner = None, os.getpid()
            with contextlib.suppress(OSError):  # without processes, files are opened here at once
                self._child = ChildProcess(__name__)
                atexit.register(self._child.stop)
        return self._child


_TRIALS = _Trials()


def without_trials() -> None:
    """Opens files at once from now on; for a process that may crash."""
    _TRIALS.wanted = False


def check_survives(source: FileSource, reading: Reading) -> None:
    """Refuses a file that would end the process which opens it.

    Args:
        source: The file; of a named one the answer is remembered until it is written anew.
        reading: What is declared of it.

    Raises:
        UserError: It would.
    """
    if not _TRIALS.wanted:
        return
    text = str(replace(reading, page=None))
    if isinstance(source, str):
        status = os.stat(source)
        path = os.path.abspath(source)
        problem = _tried_before(path, (status.st_mtime_ns, status.st_size), text)
    else:
        source.seek(0)
        problem = _TRIALS.try_out("", source.read(), text)
    if problem:
        raise UserError(problem)


@lru_cache(maxsize=_KEPT)
def _tried_before(path: str, stamp: tuple[int, int], reading: str) -> str:
    return _TRIALS.try_out(path, b"", reading)


def _try(facts: dict[str, Any], content: bytes) -> tuple[Any, ...]:
    """Opens a file; whatever is wrong with it is found again by whoever asks."""
    from data_prep.formats import hdf5
    from data_prep.limits import ReadLimits

    source = facts["path"] or io.BytesIO(content)
    with (
        contextlib.suppress(Exception),
        hdf5.open_array(source, parse_reading(facts["reading"]), ReadLimits()) as array,
    ):
        array.try_values()
    return ({},)


def main() -> None:
    """Opens the files that are named on standard input until it ends."""
    without_trials()
    serve_frames(*own_streams(), _try)
