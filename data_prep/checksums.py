"""Checksums of the files that the state of a run lies in, and of those that it hands out.

`checksums.json` in a folder holds for some of its files how many bytes had been written and their
SHA-256. A file may have grown since: a log is checked as far as it had come. A file whose checksum
is wrong, or that is gone, is damaged. Folders of before version 0.2 have no checksums: nothing is
checked in them.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from data_prep.claim import LOCK
from data_prep.errors import UserError
from data_prep.storage import write_text

log = logging.getLogger(__name__)

FILE = "checksums.json"
CHANGING = f"{LOCK}-checksums"
"""The locked file while the checksums change."""

AGAIN = "give the command that has written it again, which mends it"
"""What to do about a damaged file of a run that another command reads."""

ANEW = "restore it, or begin anew in another folder"
"""What to do about a damaged file that nothing can make again."""

_PART = 1 << 20


_Known = dict[str, dict[str, Any]]


class Checksums:
    """The checksums of a folder; processes change them one after the other.

    Args:
        folder: Where the files lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write_text(self, name: str, text: str) -> None:
        """Writes a whole file and notes its checksum."""
        self.forget(name)
        write_text(self._folder / name, text)
        content = text.encode()
        self.note(name, len(content), hashlib.sha256(content).hexdigest())

    def write_last(self, name: str, text: str) -> None:
        """Writes a file that tells that all others are whole: where it is, its checksum is known.

        After a kill in between, what was there before counts as damaged.
        """
        content = text.encode()
        self.note(name, len(content), hashlib.sha256(content).hexdigest())
        write_text(self._folder / name, text)

    def note_file(self, name: str) -> None:
        """Notes the checksum of a file as it is now; what was known must be forgotten first."""
        self.note_files([name])

    def note_files(self, names: Collection[str]) -> None:
        """Notes the checksums of files as they are now, see `note_file`."""
        found = {}
        for name in names:
            with (self._folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
                found[name] = {"bytes": file.tell(), "sha256": digest.hexdigest()}
        with self._changing() as known:
            known.update(found)

    def note(self, name: str, size: int, sha256: str) -> None:
        """Notes a checksum.

        Args:
            name: Of a file in the folder.
            size: Bytes that it holds by now.
            sha256: Their SHA-256, in hexadecimal.
        """
        with self._changing() as known:
            known[name] = {"bytes": size, "sha256": sha256}

    def forget(self, *names: str) -> None:
        """Removes what is known of files, before they are changed in another way than growing."""
        with self._changing() as known:
            for name in names:
                known.pop(name, None)

    def names(self) -> list[str]:
        """The files that there are checksums of."""
        return list(self._read())

    def check(self, *names: str, remedy: str = "") -> None:
        """Raises UserError, which names the file, if one of these is damaged or gone.

        Args:
            names: Of files in the folder.
            remedy: What to do about it; `AGAIN` where another command has written the files.
        """
        for name in names:
            if fault := self.fault(name):
                raise UserError(_damaged(self._folder / name, f"it {fault}", remedy))

    def fault(self, name: str) -> str:
        """Says in a few words what is wrong with a file; empty if it is as it was written."""
        entry = self._read().get(name)
        if entry is None:
            return ""
        digest, left = hashlib.sha256(), int(entry["bytes"])
        try:
            with (self._folder / name).open("rb") as file:
                while left and (part := file.read(min(left, _PART))):
                    digest.update(part)
                    left -= len(part)
        except (FileNotFoundError, NotADirectoryError):
            return "is gone"
        except IsADirectoryError:
            return "is a folder"
        if left:
            return f"holds {entry['bytes'] - left} of {entry['bytes']} bytes"
        if digest.hexdigest() != entry["sha256"]:
            return "is not as it was written: its checksum is wrong"
        return ""

    @contextmanager
    def _changing(self) -> Iterator[_Known]:
        """What is known, to be changed; it is written at the end if it was."""
        # Another process may evaluate while one trains.
        with filelock.FileLock(self._folder / CHANGING, mode=0o644):
            before = self._read()
            known = dict(before)
            yield known
            if known != before:
                write_text(self._folder / FILE, json.dumps(known, indent=1, sort_keys=True) + "\n")

    def _read(self) -> _Known:
        file = self._folder / FILE
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
            return {name: {"bytes": int(entry["bytes"]), "sha256": str(entry["sha256"])}
                    for name, entry in known.items()}  # fmt: skip
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError):
            log.warning("%s is damaged: the files beside it cannot be checked", file)
            return {}


def _damaged(path: Path, why: str, remedy: str) -> str:
    return f"{path} is damaged: {why}{remedy and '; '}{remedy}"


def read_checked(path: Path, remedy: str = "") -> str:
    """Reads a text file, and checks it if the checksums beside it know it.

    Args:
        path: The file.
        remedy: See `Checksums.check`.

    Raises:
        FileNotFoundError: It is not there, and nothing says that it should be.
        UserError: It is damaged.
    """
    Checksums(path.parent).check(path.name, remedy=remedy)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(_damaged(path, f"it is no text ({error.reason})", remedy)) from None


def read_object(path: Path, remedy: str = "") -> dict[str, Any]:
    """Reads a JSON file that holds names and values, checked like `read_checked`.

    Args:
        path: The file.
        remedy: See `Checksums.check`.

    Raises:
        FileNotFoundError: It is not there, and nothing says that it should be.
        UserError: It is damaged.
    """
    try:
        found = json.loads(read_checked(path, remedy))
    except json.JSONDecodeError as error:
        raise UserError(_damaged(path, f"it is no JSON ({error})", remedy)) from None
    if not isinstance(found, dict):
        raise UserError(_damaged(path, "it holds no names and values", remedy))
    return found
