"""Writing files so that a reader, or a killed process, never sees half of one; and their hashes."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_prep.errors import FullDiskError, UserError


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


# What operating systems say of a disk that takes no more, whichever library passes it on.
_DISK_IS_FULL = ("No space left on device", "Disk quota exceeded", "File too large")


def full_disk(error: BaseException, path: str | os.PathLike[str] = "") -> str:
    """Says in one line that a disk is full, and how much is left; empty if that is not what failed.

    Args:
        error: What was raised, by whichever library.
        path: What was being written; that which the error names, if it is not given.
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
        raise UserError(f"--{flag}={file}: must end in .png")
    if file.exists():
        raise UserError(f"--{flag}={file}: is there already; give another name, or remove it first")


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
