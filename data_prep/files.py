"""Writing files so that a reader, or a killed process, never sees half of one; and their hashes."""

import hashlib
import os
import tempfile
from pathlib import Path

from data_prep.errors import UserError


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
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


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
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: give another --output, or remove it first")
