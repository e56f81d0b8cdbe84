"""A process that reads the images of strangers for a service, which it cannot hang or bring down.

A damaged file can send a library round in circles, make it take all memory, or crash it. In a
process of its own that costs the one file: the process is killed and started anew. Only JSON and
pixels come back from it, nothing that could be run.
"""

import contextlib
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np

from data_prep.errors import UserError
from data_prep.extensions import load_extensions
from data_prep.limits import ReadLimits
from data_prep.training_files import TrainingFiles
from data_prep.uploads import Upload, UploadOptions, read_upload

_FRAME = struct.Struct("<QQ")  # bytes of JSON, bytes of data
_START = 120.0  # seconds that the process may take to start
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class ReaderBudget:
    """What one image may cost.

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
        budget: What one may cost.
    """

    def __init__(self, options: UploadOptions, budget: ReaderBudget) -> None:
        self._options, self._budget = options, budget
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
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
            UserError: They are no image, one that is too large, or one that takes too long.
            ReaderUnavailableError: There is no process to read them.
        """
        with self._lock:
            process = self._running()
            try:
                facts, data = _exchange(
                    process, {"thumbnail": thumbnail}, content, self._budget.seconds
                )
            except _BrokenError as error:
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

    def _running(self) -> subprocess.Popen[bytes]:
        """The process, ready for an image."""
        if self._process is None or self._process.poll() is not None:
            self._stop()
            self._launch()
        process = self._process
        if process is None:
            raise ReaderUnavailableError
        if not self._ready:
            setup = {**asdict(self._options), **asdict(self._budget)}
            try:
                _exchange(process, setup, b"", _START)
            except _BrokenError:
                self._stop()
                raise ReaderUnavailableError from None
            self._ready = True
        return process

    def _launch(self) -> None:
        if self._closed:
            return
        # The modules are found where they were found here, not in the working directory.
        path = os.pathsep.join(place for place in sys.path if place)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from {__name__} import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )
        except OSError:
            self._process = None
        self._ready = False

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
            with contextlib.suppress(OSError):  # what it did not take is dropped
                process.stdin.close()  # type: ignore[union-attr]


class _BrokenError(Exception):
    """The process did not answer.

    Attributes:
        late: It was killed when its time was over.
    """

    def __init__(self, *, late: bool) -> None:
        super().__init__()
        self.late = late


def _exchange(
    process: subprocess.Popen[bytes], facts: Mapping[str, Any], data: bytes, seconds: float
) -> tuple[dict[str, Any], bytes]:
    """Sends a frame and receives the answer to it; the process is killed when time is over."""
    assert process.stdin
    assert process.stdout
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        _send(process.stdin, facts, data)
        return _receive(process.stdout)
    except (OSError, EOFError, ValueError):
        raise _BrokenError(late=late.is_set()) from None
    finally:
        timer.cancel()


def _send(stream: IO[bytes], facts: Mapping[str, Any], *data: bytes | memoryview) -> None:
    head = json.dumps(facts).encode()
    stream.write(_FRAME.pack(len(head), sum(map(len, data))) + head)
    for piece in data:
        stream.write(piece)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    head, data = _FRAME.unpack(_exactly(stream, _FRAME.size))
    return json.loads(_exactly(stream, head)), _exactly(stream, data)


def _exactly(stream: IO[bytes], number: int) -> bytes:
    data = stream.read(number)
    if len(data) < number:
        raise EOFError
    return data


def _upload(facts: dict[str, Any], data: bytes) -> Upload:
    """What the process says of an image."""
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
    """Lets this process take so many bytes beyond what it has."""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as status:
        taken = int(status.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + extra, taken + extra))


def main() -> None:
    """Answers frames from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal, meant for the service
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print
    setup, _ = _receive(source)
    options = UploadOptions(setup["channels"], setup["reading"], ReadLimits(**setup["limits"]))
    load_extensions()
    _bound_memory(setup["memory"])
    _send(sink, {})
    while True:
        try:
            facts, content = _receive(source)
        except EOFError:
            return
        if sys.platform != "win32":
            # Should the service be gone by then: it ends this process even within a library.
            signal.setitimer(signal.ITIMER_REAL, setup["seconds"] + 10)
        _send(sink, *_answer(facts, content, options))
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, 0)
