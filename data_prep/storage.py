"""Files and folders that are there whole or not at all: writing, claiming, resuming, checksums.

The lock is one of the operating system on a file in the folder, so it ends with the process that
holds it, even a killed one. Network file systems must offer such locks (NFS 4 does).

`checksums.json` in a folder holds for some of its files how many bytes had been written and their
SHA-256. A file may have grown since: a log is checked as far as it had come. A file whose checksum
is wrong, or that is gone, is damaged. Folders from before version 0.2 have no checksums: nothing is
checked in them.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import filelock

from data_prep.errors import FullDiskError, UserError

log = logging.getLogger(__name__)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file in one step: it is there whole, or as it was before.

    Args:
        path: Where to write; the folder must exist.
        text: The whole content, written as UTF-8.
    """
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file in one step, see `write_text`."""
    path = Path(path)
    with writing(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def put_in_place(part: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Gives a file or a new folder that is whole its name, in one step.

    Args:
        part: What has been written, on the same disk.
        target: Its name; a file of this name is replaced.
    """
    os.replace(part, target)


# What operating systems say of a disk that takes no more, whichever library passes it on.
_DISK_IS_FULL = ("No space left on device", "Disk quota exceeded", "File too large")


def full_disk(error: BaseException, path: str | os.PathLike[str] = "") -> str:
    """Says in one line that a disk is full, and how much is left; empty if it is not full.

    Args:
        error: The exception, by whichever library.
        path: The file that was being written; if not given, the one that the error names.
    """
    text = str(error)
    known = next((said for said in _DISK_IS_FULL if said in text), "")
    if not known:
        return ""
    what = os.fspath(path or getattr(error, "filename", None) or "")
    place = Path(what or ".").absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**20
    return (
        f"{what or 'a file'} could not be written: {known} ({free:,.1f} MiB are free"
        f"{'' if what else ' here'}); make room and give the same command again"
    )


@contextmanager
def naming_full_disk(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns the failure to write to a full disk inside the block into one line.

    Args:
        path: What is being written.

    Raises:
        FullDiskError: The disk is full.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if said := full_disk(error, path):
            raise FullDiskError(said) from None
        raise


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns a failure to write a file inside the block into one line that names the file.

    Args:
        path: What is being written.

    Raises:
        UserError: The folder may not be written to, or the like; a `FullDiskError` if the disk is
            full.
    """
    try:
        with naming_full_disk(path):
            yield
    except OSError as error:
        why = error.strerror or str(error).splitlines()[0]
        raise UserError(f"{os.fspath(path)} could not be written: {why}") from None


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A place for a folder that replaces another at the end of the block: whole, or not at all.

    Args:
        target: The folder; what is there stays until the new one is whole.

    Raises:
        UserError: It cannot be written; what was there before is as it was.
    """
    draft = target.with_name(f".{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with writing(target):
            yield draft
            if target.exists():
                shutil.rmtree(target)
            draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_new_png(path: str | os.PathLike[str], flag: str) -> None:
    """Raises UserError if the path, which a flag gives, is no new PNG file."""
    file = Path(path)
    if file.suffix.lower() != ".png":
        raise UserError("must end in .png", setting=flag, value=file)
    if file.exists():
        raise UserError(
            "is there already; give another name, or remove it first", setting=flag, value=file
        )


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_new_folder(folder: Path) -> None:
    """Raises UserError unless the folder is missing or empty."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give another --output")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: give another --output, or remove it first")


COMPLETE = ".complete.json"
"""The note in a finished folder: the plan that it was written by, and a hash of its content."""


@contextmanager
def only_one(file: Path, busy: str) -> Iterator[IO[str]]:
    """Locks a file for the length of the block, so that one process at a time is in it.

    Processes that inherit the open file hold the lock too, for as long as they run.

    Args:
        file: Is made if it is not there; its folder must be.
        busy: What to say if another process holds the lock.

    Raises:
        UserError: Another process holds it.
    """
    with open(file, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(busy) from None
        yield lock


@contextmanager
def partial_folder(target: Path, plan: str) -> Iterator[Path]:
    """The folder to fill, hidden beside the target; it becomes the target at the end of the block.

    Files that an interrupted or killed call of the same plan has left are still in it, and the
    block should skip them. So files must be put there whole (under another name first).

    Args:
        target: A folder that does not exist yet or is empty.
        plan: Hash of all that decides the content.

    Raises:
        UserError: The target holds something, or another process is at it. A UserError from
            inside the block removes what is there, but for a `FullDiskError`.
    """
    target = target.expanduser().absolute()
    check_new_folder(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}.partial")
    work.mkdir(exist_ok=True)
    busy = f"another process is writing {target}; wait for it to end"
    with only_one(work / "lock", busy):
        content, noted = work / "content", work / "plan"
        if noted.exists() and noted.read_text(encoding="utf-8") == plan:
            log.info("going on where an interrupted call has left %s", target)
        else:
            shutil.rmtree(content, ignore_errors=True)
            write_text(noted, plan)
        content.mkdir(exist_ok=True)
        try:
            with naming_full_disk(target):
                yield content
                note_complete(content, plan)
                content.replace(target)
        except FullDiskError:
            raise
        except UserError:
            shutil.rmtree(work)
            raise
        shutil.rmtree(work)


def note_complete(folder: Path, plan: str) -> None:
    """Notes in a folder that it holds all that a plan asks for.

    Args:
        folder: The whole content.
        plan: Hash of all that decides it.
    """
    write_text(folder / COMPLETE, json.dumps({"plan": plan, "content": listing(folder)}) + "\n")


def may_be_complete(target: Path) -> bool:
    """Returns True if a folder holds the note of a finished one, by whatever plan."""
    return (target.expanduser() / COMPLETE).is_file()


def is_complete(target: Path, plan: str) -> bool:
    """Checks if a folder is complete by this plan, as the same command has written it before.

    Args:
        target: The folder.
        plan: Hash of all that decides the content.

    Returns:
        True if it is, no file being gone or of another size. What an interrupted call has left
        beside it is then removed.
    """
    target = target.expanduser().absolute()
    try:
        noted = json.loads((target / COMPLETE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if noted != {"plan": plan, "content": listing(target)}:
        return False
    shutil.rmtree(target.with_name(f".{target.name}.partial"), ignore_errors=True)
    log.info("%s is complete: the same command has written it before", target)
    return True


def listing(folder: Path) -> str:
    """Hash of the names and sizes of all files in a folder."""
    digest = hashlib.sha256()
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(place) / name
            if name != COMPLETE:
                known = f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\n"
                digest.update(known.encode(errors="surrogateescape"))
    return digest.hexdigest()


LOCK = ".lock"


@contextmanager
def claimed(folder: Path, busy: str, name: str = LOCK) -> Iterator[None]:
    """Keeps other processes out of a folder for the length of the block.

    Args:
        folder: Is made if it is not there. A folder that this call has made and that is empty
            at the end is removed again.
        busy: What to say if another process is in the folder.
        name: Of the locked file in it; each name is a lock of its own. The file stays, unless this
            call has made it and the block ends in a `UserError`.

    Raises:
        UserError: Another process holds the lock, or there is a file in the folder's place;
            nothing has been changed then.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"{place}: is a file; give a folder")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    new_lock = not (folder / name).exists()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    lock = filelock.FileLock(file, mode=0o644)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise UserError(busy) from None
    try:
        yield
    except UserError:
        if new_lock:  # a folder of somebody else's, which was refused, stays as it was
            with suppress(OSError):  # Windows does not remove open files
                file.unlink(missing_ok=True)
        raise
    finally:
        if missing and is_unused(folder):
            file.unlink(missing_ok=True)
        lock.release()
        _remove_empty(missing)


def is_unused(folder: Path, besides: Collection[Path] = ()) -> bool:
    """Returns True if a folder holds nothing but locks and, perhaps, the given files."""
    if not folder.is_dir():
        return False
    return all(p.name.startswith(LOCK) or p in besides for p in folder.iterdir())


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


@contextmanager
def new_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """The folder to fill, hidden beside the target; it becomes the target at the end of the block.

    If the block fails or is interrupted, nothing is left. (`partial_folder` is for long work that
    is to go on where it was.)

    Args:
        target: A folder that does not exist yet or is empty.

    Raises:
        UserError: The target holds something, or another process is writing it.
    """
    target = Path(target)
    check_new_folder(target)
    lock = target.with_name(f".lock-{target.name}")
    busy = f"another process is writing {target}; wait for it to end"
    with claimed(target.parent, busy, lock.name):
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            with naming_full_disk(target):
                yield work
                work.chmod(0o755)  # mkdtemp makes it private
                work.replace(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            lock.unlink(missing_ok=True)


FILE = "checksums.json"
CHANGING = f"{LOCK}-checksums"
"""The locked file while the checksums change."""

AGAIN = "give the command that has written it again, which mends it"
"""Remedy for a damaged file of a run that another command reads."""

ANEW = "restore it, or begin anew in another folder"
"""Remedy for a damaged file that nothing can make again."""

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
        """Writes a file whose presence tells that all others are whole, its checksum first.

        After a kill in between, what was there before counts as damaged.
        """
        content = text.encode()
        self.note(name, len(content), hashlib.sha256(content).hexdigest())
        write_text(self._folder / name, text)

    def note_file(self, name: str) -> None:
        """Notes the checksum of a file as it is now; an older one must be forgotten first."""
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
        """Removes the checksums of files, before they are changed in another way than growing."""
        with self._changing() as known:
            for name in names:
                known.pop(name, None)

    def names(self) -> list[str]:
        """The names of the files that have checksums."""
        return list(self._read())

    def check(self, *names: str, remedy: str = "") -> None:
        """Raises UserError, which names the file, if one of these is damaged or gone.

        Args:
            names: Of files in the folder.
            remedy: Advice for the message; `AGAIN` if another command has written the files.
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
        """The known checksums, to be changed in the block; changes are written at its end."""
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
