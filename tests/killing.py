"""A process that dies before one of its writes, without a process."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


class Killed(BaseException):
    """What ends the work; nothing may handle it."""


class Writes:
    """Counts the writes below a folder, and dies before one of them, and all that come after.

    Attributes:
        seen: What was written, in order: the kind of write and the path relative to the folder.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._folder: str | None = None
        self._last = 0
        sys.addaudithook(self._hear)  # hooks cannot be taken away, so there is one for all tests

    @contextmanager
    def below(self, folder: Path, last: int = 0) -> Iterator[None]:
        """Listens for the length of the block.

        Args:
            folder: Writes elsewhere do not count.
            last: The number of the write that does not happen any more; 0 = all happen.
        """
        self.seen, self._last, self._folder = [], last, os.path.realpath(folder)
        try:
            yield
        finally:
            self._folder = None

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._folder is None:
            return
        if event == "open":
            path, _mode, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITING:
                return
        elif event in _EVENTS:
            path = arguments[0]
        else:
            return
        if not isinstance(path, str | os.PathLike):
            return
        full = os.path.abspath(os.fspath(path))
        if not full.startswith(self._folder) or os.path.basename(full).startswith(".lock"):
            return
        self.seen.append((event, os.path.relpath(full, self._folder)))
        if self._last and len(self.seen) >= self._last:
            raise Killed(self.seen[-1])


WRITES = Writes()
