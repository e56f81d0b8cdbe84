"""A child process for work on files that may crash it, which answers in JSON and bytes.

A damaged file can send a library round in circles, make it take all memory, or crash it. In a
process of its own that costs only the one file: the process is killed and can be started anew.
Its answers hold no code, so nothing that comes back could be run.
"""

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any

_FRAME = struct.Struct("<QQ")  # bytes of JSON, bytes of data


class BrokenChildError(Exception):
    """The process did not answer.

    Attributes:
        late: True if it was killed because its time was over.
    """

    def __init__(self, *, late: bool) -> None:
        super().__init__()
        self.late = late


class ChildProcess:
    """A process that runs `main()` of a module, which calls `serve_frames`.

    Args:
        module: Name of the module.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, module: str) -> None:
        # The modules are found where they were found here, not in the working directory.
        path = os.pathsep.join(place for place in sys.path if place)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {module} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )

    def runs(self) -> bool:
        """Returns True while the process has not ended."""
        return self._process.poll() is None

    def exchange(
        self, facts: Mapping[str, Any], data: bytes, seconds: float
    ) -> tuple[dict[str, Any], bytes]:
        """Sends a frame and receives the answer to it.

        Args:
            facts: To be sent as JSON.
            data: Sent with it.
            seconds: Until the process is killed.

        Raises:
            BrokenChildError: There is no answer.
        """
        process, late = self._process, threading.Event()
        assert process.stdin
        assert process.stdout

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            send(process.stdin, facts, data)
            return receive(process.stdout)
        except (OSError, EOFError, ValueError):
            raise BrokenChildError(late=late.is_set()) from None
        finally:
            timer.cancel()

    def stop(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        with contextlib.suppress(OSError):  # what it did not take is dropped
            self._process.stdin.close()  # type: ignore[union-attr]


def own_streams() -> tuple[IO[bytes], IO[bytes]]:
    """The streams of frames of a child process, called in it: (to read from, to write to)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal, meant for the parent
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print
    return source, sink


def serve_frames(
    source: IO[bytes],
    sink: IO[bytes],
    answer: Callable[[dict[str, Any], bytes], tuple[Any, ...]],
) -> None:
    """Answers frames until their stream ends.

    Args:
        source: Stream of frames.
        sink: Stream of answers.
        answer: Gives the facts and the pieces of data of an answer.
    """
    while True:
        try:
            facts, data = receive(source)
        except EOFError:
            return
        send(sink, *answer(facts, data))


def send(stream: IO[bytes], facts: Mapping[str, Any], *data: bytes | memoryview) -> None:
    """Writes a frame."""
    head = json.dumps(facts).encode()
    stream.write(_FRAME.pack(len(head), sum(map(len, data))) + head)
    for piece in data:
        stream.write(piece)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Reads a frame.

    Raises:
        EOFError: The stream ended.
    """
    head, data = _FRAME.unpack(_exactly(stream, _FRAME.size))
    return json.loads(_exactly(stream, head)), _exactly(stream, data)


def _exactly(stream: IO[bytes], number: int) -> bytes:
    data = stream.read(number)
    if len(data) < number:
        raise EOFError
    return data
