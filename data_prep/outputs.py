"""Outputs of a command: there whole or not at all, and recognised when the command is repeated.

Every output is made under a hidden name beside its place. Once all are whole, a hidden note beside
the first of them, `.NAME.complete.json`, says what was asked for and what the outputs hold; then
they take their names. So after a kill at any moment it is known which of them are the command's
own. (`storage.partial_folder` is for folders that are filled in many steps.)
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import FullDiskError, UserError
from data_prep.manifest.manifest import Manifest
from data_prep.settings import Config
from data_prep.storage import claimed, file_sha256, listing, naming_full_disk, write_text

_LOGGER = logging.getLogger(__name__)

# Files that commands write into folders of images and of runs, and that hold no pixels or weights.
_WRITTEN = (".csv", ".html", ".json", ".log", ".md", ".onnx", ".txt")


@dataclass
class Drafts:
    """Outputs in the making.

    Attributes:
        paths: Where each is to be written, in the order of the outputs. A path at which nothing is
            at the end is no output of this request.
        code: Exit code of the command, which it returns again when it is repeated.
    """

    paths: list[Path]
    code: int = 0


@dataclass(frozen=True)
class Outputs:
    """The outputs of one request.

    Attributes:
        request: Hash of all that decides them.
        paths: Files or folders; the note lies beside the first.
        mend: Advice for the error if something else is there.
        overwrite: Replace whatever is there; of folders, the files of the same names.
    """

    request: str
    paths: tuple[Path, ...]
    mend: str
    overwrite: bool = False

    def code_if_complete(self) -> int | None:
        """Looks for a complete earlier run of the same command, and logs it if there is one.

        Returns:
            The exit code of that run; None if there is something to write.

        Raises:
            UserError: Something else is there, and is not to be replaced.
        """
        if self.overwrite:
            return None
        noted = self._noted()
        same = noted.get("request") == self.request
        content = noted.get("content") if same else None
        there = [_is_there(path) for path in self.paths]
        if not any(there):
            return None
        held = [_content(path) for path in self.paths]
        if held == content:
            _LOGGER.info("%s is complete: the same command has written it before", self.paths[0])
            code: int = noted["code"]
            return code
        for index, path in enumerate(self.paths):
            own = content is not None and held[index] == content[index]
            if there[index] and not own:
                other = (
                    "has been changed since this command has written it" if same
                    else "is there already, written by another command" if noted
                    else "is there already"
                )  # fmt: skip
                raise UserError(f"{path} {other}; {self.mend}")
        return None  # of the outputs some had not yet been put in their places

    @contextmanager
    def drafts(self) -> Iterator[Drafts]:
        """Places to write the outputs to; at the end of the block they take their names.

        If the block fails, nothing is left of them, and what was there before stays.

        Raises:
            UserError: Another process is writing them, or the disk is full.
        """
        first = self.paths[0]
        work = [path.with_name(f".draft-{path.name}") for path in self.paths]
        lock = first.with_name(f".lock-{first.name}")
        busy = f"another process is writing {first}; wait for it to end"
        with claimed(first.parent, busy, lock.name):
            for draft in work:
                draft.parent.mkdir(parents=True, exist_ok=True)
            for draft in (*work, self._note):
                _remove_halves(draft)
            for draft in work:
                _remove(draft)
            try:
                with naming_full_disk(first):
                    drafts = Drafts(work)
                    yield drafts
                    self._publish(drafts)
            except FullDiskError as error:
                text = str(error).replace(str(self._note), str(first))
                for draft, path in zip(work, self.paths, strict=True):
                    text = text.replace(str(draft), str(path))
                raise FullDiskError(text) from None
            finally:
                for draft in work:
                    _remove(draft)
                lock.unlink(missing_ok=True)

    def _publish(self, drafts: Drafts) -> None:
        for draft, path in zip(drafts.paths, self.paths, strict=True):
            if not draft.is_dir() and path.is_dir() and _is_there(path):
                raise UserError(f"{path} is a folder that holds something; {self.mend}")
        content = [_content(draft) for draft in drafts.paths]
        text = {"request": self.request, "content": content, "code": drafts.code}
        write_text(self._note, json.dumps(text) + "\n")
        for draft, path in zip(drafts.paths, self.paths, strict=True):
            if draft.is_dir() and path.is_dir():
                _move_into(draft, path)
            elif os.path.lexists(draft):
                if path.is_dir():
                    path.rmdir()  # an empty one, see below
                draft.replace(path)
            else:
                path.unlink(missing_ok=True)

    @property
    def _note(self) -> Path:
        return self.paths[0].with_name(f".{self.paths[0].name}.complete.json")

    def _noted(self) -> dict[str, Any]:
        try:
            noted = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        known = isinstance(noted, dict) and set(noted) == {"request", "content", "code"}
        return noted if known and len(noted["content"]) == len(self.paths) else {}


def _is_there(path: Path) -> bool:
    """Returns True if there is something at the path; an empty folder counts as nothing."""
    return os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir()))


def _content(path: Path) -> str:
    """Hash of a file, or of the names and sizes in a folder; empty if there is neither."""
    if path.is_dir():
        return listing(path) if any(path.iterdir()) else ""
    return file_sha256(path) if path.is_file() else ""


def _move_into(draft: Path, folder: Path) -> None:
    """Puts a folder's content in the place of another's; files that only the other has stay."""
    if not any(folder.iterdir()):
        draft.replace(folder)
        return
    for entry in list(draft.iterdir()):
        _remove(folder / entry.name)
        entry.replace(folder / entry.name)


def _remove_halves(path: Path) -> None:
    """Removes what a killed `write_bytes` has left of a file."""
    for entry in list(path.parent.iterdir()):
        if entry.name.startswith(f".{path.name}.") and entry.is_file():
            entry.unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def stamps(paths: Sequence[str], outputs: Collection[Path] = ()) -> str:
    """Hash of the names, sizes and times of files, and of those in folders that may be read there.

    Hidden files in folders do not count, nor tables, pages and notes, which commands may have
    written there meanwhile.

    Args:
        paths: Files, folders, or the common beginning of the names of files (`ckpt-100`).
        outputs: Absolute paths that do not count: they may be written into one of the folders.
    """
    digest = hashlib.sha256()
    own = {os.path.normpath(output) for output in outputs}
    for path in paths:
        for file in _files(os.path.abspath(path), own):
            status = os.stat(file)
            text = f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(text.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(path: str, own: Collection[str]) -> Iterator[str]:
    if os.path.isfile(path):
        yield path
        return
    if not os.path.isdir(path):
        folder, beginning = os.path.split(path)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if name.startswith(f"{beginning}."):
                yield os.path.join(folder, name)
        return
    for place, folders, files in os.walk(path):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.join(place, name) not in own
        )
        for name in sorted(files):
            file = os.path.join(place, name)
            counts = not name.startswith(".") and not name.lower().endswith(_WRITTEN)
            if counts and file not in own and os.path.isfile(file):
                yield file


# Settings that name what is read, whose files count with their sizes and times.
_READ = ("image_dir", "manifest", "tfrecord_dir", "target_dir", "model", "checkpoint", "compare")


def requested_outputs(
    config: Config,
    given: Collection[str],
    command: str,
    outputs: Sequence[str] = ("output",),
    besides: Collection[Path] = (),
) -> Outputs:
    """The outputs of a command, by its settings.

    Args:
        config: All settings.
        given: Names of those that were given, which decide the outputs.
        command: Name of the command.
        outputs: Names of the settings that name outputs. The first must be given; of the others,
            those that are empty write no output.
        besides: Files that are written beside the outputs.
    """
    values = config.values()
    asked = {n: values[n] for n in values if n in given and n not in {*outputs, "overwrite"}}
    paths = [Path(values[name]).expanduser().absolute() for name in outputs if values[name]]
    paths += [Path(path).expanduser().absolute() for path in besides]
    read = {name: _stamp(name, values, paths) for name in _READ if asked.get(name)}
    key = json.dumps([command, asked, read], sort_keys=True, default=str)
    may = "overwrite" in values
    mend = f"give another --{outputs[0]}, or {'--overwrite' if may else 'remove it first'}"
    request = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
    return Outputs(request, tuple(paths), mend, may and values["overwrite"])


def _stamp(name: str, values: Mapping[str, Any], outputs: Sequence[Path]) -> str:
    value = values[name]
    paths = [value] if isinstance(value, str) else list(value)
    if name == "manifest":
        try:
            listed = Manifest.load(paths[0], values.get("image_dir", ""))
        except (UserError, OSError):
            return ""  # the command itself says what is wrong with it
        paths = [*paths, *listed.files(), *filter(None, listed.target_files())]
    return stamps(paths, outputs)
