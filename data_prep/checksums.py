"""Checksums of the small files that the state of a run lies in.

`checksums.json` in a folder holds for some of its files how many bytes had been written and their
SHA-256. A file may have grown since: a log is checked as far as it had come. A file whose checksum
is wrong, or that is gone, is damaged. Folders of before version 0.2 have no checksums: nothing is
checked in them.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.files import write_text

log = logging.getLogger(__name__)

FILE = "checksums.json"


class Checksums:
    """The checksums of a folder; one process at a time may change them.

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

    def note_file(self, name: str) -> None:
        """Notes the checksum of a file as it is now; what was known must be forgotten first."""
        content = (self._folder / name).read_bytes()
        self.note(name, len(content), hashlib.sha256(content).hexdigest())

    def note(self, name: str, size: int, sha256: str) -> None:
        """Notes a checksum.

        Args:
            name: Of a file in the folder.
            size: Bytes that it holds by now.
            sha256: Their SHA-256, in hexadecimal.
        """
        self._write({**self._read(), name: {"bytes": size, "sha256": sha256}})

    def forget(self, *names: str) -> None:
        """Removes what is known of files, before they are changed in another way than growing."""
        known = self._read()
        left = {name: entry for name, entry in known.items() if name not in names}
        if left != known:
            self._write(left)

    def fault(self, name: str) -> str:
        """Says in a few words what is wrong with a file; empty if it is as it was written."""
        entry = self._read().get(name)
        if entry is None:
            return ""
        try:
            with (self._folder / name).open("rb") as file:
                content = file.read(entry["bytes"])
        except FileNotFoundError:
            return "is gone"
        if len(content) < entry["bytes"]:
            return f"holds {len(content)} of {entry['bytes']} bytes"
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            return "is not as it was written: its checksum is wrong"
        return ""

    def _read(self) -> dict[str, dict[str, Any]]:
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

    def _write(self, known: dict[str, dict[str, Any]]) -> None:
        write_text(self._folder / FILE, json.dumps(known, indent=1, sort_keys=True) + "\n")


def read_checked(path: Path) -> str:
    """Reads a text file, and checks it if the checksums beside it know it.

    Raises:
        FileNotFoundError: It is not there, and nothing says that it should be.
        UserError: It is damaged.
    """
    fault = Checksums(path.parent).fault(path.name)
    if fault:
        raise UserError(f"{path} is damaged: it {fault}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: it is no text ({error.reason})") from None


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds names and values, checked like `read_checked`.

    Raises:
        FileNotFoundError: It is not there, and nothing says that it should be.
        UserError: It is damaged.
    """
    try:
        found = json.loads(read_checked(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged: it is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it holds no names and values")
    return found
