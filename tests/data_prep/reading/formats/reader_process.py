"""A process of its own that reads files which somebody has damaged, and says what became of them.

It has little memory and no time, and watches which files are opened.
"""

import contextlib
import io
import os
import pickle
import resource
import select
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from data_prep.errors import UserError
from data_prep.reading.headers import Header, parse_header
from data_prep.reading.images import read_image
from data_prep.reading.limits import ReadLimits
from data_prep.reading.spec import parse_reading

MEMORY = 2**30  # beyond what the libraries take
SECONDS = 10.0
LIMITS = ReadLimits(max_pixels=10**6, max_bytes=2**25)


@dataclass(frozen=True)
class Attempt:
    """A file to be read.

    Attributes:
        content: Its bytes.
        reading: What is declared of it.
        limited: With `LIMITS`, as a server reads; otherwise as an owner does, with none.
    """

    content: bytes
    reading: str
    limited: bool


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        fault: What must not have happened; "" if all is well.
        refused: Whether it was refused.
        seconds: Taken, for all ways to read it.
        memory: Most memory of the process so far beyond what its libraries take, bytes.
    """

    fault: str
    refused: bool
    seconds: float
    memory: int


class ReaderProcess:
    """The process, seen from the one that damages files; it is started anew after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, attempt: Attempt) -> Outcome:
        process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        _send(process.stdin, attempt)
        begun = time.monotonic()
        ready, _, _ = select.select([process.stdout], [], [], 3 * SECONDS)
        if not ready:
            self.close()
            return Outcome(f"not read within {3 * SECONDS} s", False, 3 * SECONDS, 0)
        try:
            outcome: Outcome = _receive(process.stdout)
        except EOFError:
            status = process.wait()
            self.close()
            return Outcome(f"the process died: {status}", False, time.monotonic() - begun, 0)
        return outcome

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", f"from {__name__} import main; main()"]
        root, pipe = Path(__file__).parents[4], subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe)
        assert self._process.stdout
        _receive(self._process.stdout)  # that it is ready
        return self._process

    def close(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
        self._process = None


def _send(stream: IO[bytes], what: Any) -> None:
    data = pickle.dumps(what)
    stream.write(struct.pack("<I", len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    head = stream.read(4)
    if len(head) < 4:
        raise EOFError
    return pickle.loads(stream.read(struct.unpack("<I", head)[0]))


class _Opened:
    """Files opened by Python that are neither the given one nor part of a library."""

    def __init__(self) -> None:
        self.others: list[str] = []
        self.given = ""
        self._libraries = {
            os.path.realpath(p) for p in (*sys.path, sys.prefix, sys.base_prefix) if p
        }
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.listdir", "os.scandir", "subprocess.Popen", "socket.connect"):
            return
        name = arguments[0] if arguments else None
        if event == "open" and not isinstance(name, str | bytes):
            return  # a descriptor that is open already
        if event == "subprocess.Popen" and "from data_prep.reading.formats.hdf5_process" in str(
            arguments[1]
        ):
            return  # the process that reads HDF5 files
        path = os.path.realpath(os.fsdecode(name)) if isinstance(name, str | bytes) else str(name)
        known = path == self.given or path.startswith(("/proc/", "/sys/", "/dev/null", "/etc/ld"))
        if not known and not any(path.startswith(library) for library in self._libraries):
            self.others.append(f"{event} {path}")


def _most_memory() -> int:
    """Most memory so far, bytes; `getrusage` would count that of the process that started it."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _try(attempt: Attempt, path: Path, opened: _Opened, libraries: int) -> Outcome:
    reading, limits = parse_reading(attempt.reading), LIMITS if attempt.limited else None
    path.write_bytes(attempt.content)
    opened.others.clear()
    begun = time.monotonic()
    headers: list[Header] = []
    shapes: list[tuple[int, ...]] = []
    fault = ""
    ways = (
        lambda: headers.append(parse_header(io.BytesIO(attempt.content), reading, "", limits)),
        lambda: shapes.append(
            read_image(attempt.content, None, attempt.reading, limits=limits).shape
        ),
        lambda: shapes.append(read_image(path, None, attempt.reading, limits=limits).shape),
    )
    for way in ways:
        try:
            way()
        except UserError as error:
            if not str(error).isprintable():
                fault = f"not one line: {error!r}"
        except BaseException:
            fault = traceback.format_exc()
    if not headers and shapes:
        fault = fault or "read, although the header is refused"
    if any(shape != (headers[0].height, headers[0].width, headers[0].channels) for shape in shapes):
        fault = fault or f"header {headers[0]}, pixels {shapes}"
    if opened.others:
        fault = f"opened other files: {opened.others}"
    seconds = time.monotonic() - begun
    if seconds > SECONDS:
        fault = fault or f"took {seconds:.0f} s"
    return Outcome(fault, not shapes, seconds, _most_memory() - libraries)


def _load_libraries(folder: Path) -> None:
    """Lets libraries load what they load with their first file."""
    import numpy as np
    from PIL import Image

    with contextlib.suppress(ImportError):
        import h5py
        import hdf5plugin  # noqa: F401
        from astropy.io import fits

        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(np.zeros((8, 8)))]).writeto(folder / "a")
        read_image(folder / "a")
        with h5py.File(folder / "b", "w") as file:
            file["a"] = np.zeros((2, 2))
        read_image(folder / "b")
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8)).save(stream, kind)
        with contextlib.suppress(UserError):
            read_image(stream.getvalue())


def main() -> None:
    """Reads attempts from standard input until it ends."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print
    with tempfile.TemporaryDirectory() as folder:
        _load_libraries(Path(folder))
        path = Path(folder) / "image"
        opened = _Opened()
        opened.given = os.path.realpath(path)
        with open("/proc/self/statm", encoding="ascii") as status:
            taken = int(status.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
        libraries = _most_memory()
        _send(sink, "ready")
        while True:
            try:
                attempt = _receive(source)
            except EOFError:
                return
            _send(sink, _try(attempt, path, opened, libraries))
