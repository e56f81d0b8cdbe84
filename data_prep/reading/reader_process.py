"""A child process that reads uploaded images, so that none can hang or crash the service."""

import math
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.extensions import load_extensions
from data_prep.reading.child_process import (
    BrokenChildError,
    ChildProcess,
    own_streams,
    receive,
    send,
    serve_frames,
)
from data_prep.reading.formats import hdf5_process
from data_prep.reading.limits import ReadLimits
from data_prep.reading.training_files import TrainingFiles
from data_prep.reading.uploads import Upload, UploadOptions, read_upload

_START = 120.0  # seconds that the process may take to start
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class ReaderBudget:
    """Limits on the time and the memory that one image may take.

    Attributes:
        seconds: Until the process is killed.
        memory: Bytes beyond what its libraries take; not bounded on systems that know no such
            limit (Windows, macOS).
    """

    seconds: float
    memory: int


class ReaderUnavailableError(RuntimeError):
    """The process cannot be started."""


class ReaderProcess:
    """Reads one image at a time in a process of its own, which lives until `close`.

    Args:
        options: How images are read.
        budget: The time and memory that one image may take.
    """

    def __init__(self, options: UploadOptions, budget: ReaderBudget) -> None:
        self._options, self._budget = options, budget
        self._lock = threading.Lock()
        self._process: ChildProcess | None = None
        self._ready = self._closed = False

    def start(self) -> None:
        """Starts the process, so that the first image need not wait for it."""
        with self._lock:
            self._launch()

    def close(self) -> None:
        """Ends the process; images are refused from now on."""
        self._closed = True
        self._stop()

    def __call__(self, content: bytes, *, thumbnail: bool = False) -> Upload:
        """Reads the bytes of an image file.

        Raises:
            UserError: They are no image, or one that is too large or takes too long.
            ReaderUnavailableError: There is no process to read them.
        """
        with self._lock:
            process = self._running()
            try:
                facts, data = process.exchange(
                    {"thumbnail": thumbnail}, content, self._budget.seconds
                )
            except BrokenChildError as error:
                self._stop()
                self._launch()
                raise UserError(self._refusal(late=error.late)) from None
        if "error" in facts:
            raise UserError(facts["error"])
        return _upload(facts, data)

    def _refusal(self, *, late: bool) -> str:
        if late:
            return f"takes more than {self._budget.seconds:g} s to read"
        megabytes = self._budget.memory / _MEBIBYTE
        return f"cannot be read (damaged, or needs more than {megabytes:g} MB of memory)"

    def _running(self) -> ChildProcess:
        """The process, ready for an image."""
        if self._process is None or not self._process.runs():
            self._stop()
            self._launch()
        process = self._process
        if process is None:
            raise ReaderUnavailableError
        if not self._ready:
            setup = {**asdict(self._options), **asdict(self._budget)}
            try:
                process.exchange(setup, b"", _START)
            except BrokenChildError:
                self._stop()
                raise ReaderUnavailableError from None
            self._ready = True
        return process

    def _launch(self) -> None:
        if self._closed:
            return
        try:
            self._process = ChildProcess(__name__)
        except OSError:
            self._process = None
        self._ready = False

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process:
            process.stop()


def _upload(facts: dict[str, Any], data: bytes) -> Upload:
    """Builds an upload from the process's answer."""
    kind = np.dtype(facts["dtype"])
    size = math.prod(facts["shape"])
    pixels = np.frombuffer(data, kind, size).reshape(facts["shape"])
    return Upload(pixels, TrainingFiles.from_record(facts), data[size * kind.itemsize :])


def _answer(facts: dict[str, Any], content: bytes, options: UploadOptions) -> tuple[Any, ...]:
    """The frame that answers an image."""
    try:
        upload = read_upload(content, options, thumbnail=facts["thumbnail"])
    except UserError as error:
        return ({"error": str(error)},)
    pixels = np.ascontiguousarray(upload.pixels)
    said = {
        "shape": pixels.shape,
        "dtype": pixels.dtype.str,
        "training_files": upload.facts.to_json(),
    }
    return said, pixels.data.cast("B"), upload.thumbnail


def _bound_memory(extra: int) -> None:
    """Limits this process to `extra` bytes of memory beyond what it has."""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as status:
        taken = int(status.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + extra, taken + extra))


def main() -> None:
    """Answers frames from standard input until it ends."""
    source, sink = own_streams()
    setup, _ = receive(source)
    options = UploadOptions(setup["channels"], setup["reading"], ReadLimits(**setup["limits"]))
    load_extensions()
    hdf5_process.work_here()
    _bound_memory(setup["memory"])
    send(sink, {})

    def answer(facts: dict[str, Any], content: bytes) -> tuple[Any, ...]:
        if sys.platform == "win32":
            return _answer(facts, content, options)
        # Should the service be gone by then: it ends this process even within a library.
        signal.setitimer(signal.ITIMER_REAL, setup["seconds"] + 10)
        answered = _answer(facts, content, options)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return answered

    serve_frames(source, sink, answer)
