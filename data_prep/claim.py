"""A folder that one process at a time works in.

The lock is one of the operating system on a file in the folder, so it ends with the process that
holds it, even a killed one. Network file systems must offer such locks (NFS 4 does).
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from data_prep.errors import UserError

LOCK = ".lock"


@contextmanager
def claimed(folder: Path, busy: str, name: str = LOCK) -> Iterator[None]:
    """Keeps other processes out of a folder for the length of the block.

    Args:
        folder: Is made if it is not there. A folder that this call has made and that is empty
            at the end is removed again.
        busy: What to say if another process is in the folder.
        name: Of the locked file in it; each name is a lock of its own. The file stays, but for one
            that this call has made when the block ends in a `UserError`.

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
    """Whether a folder holds nothing but locks, and perhaps certain files."""
    if not folder.is_dir():
        return False
    return all(p.name.startswith(LOCK) or p in besides for p in folder.iterdir())


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
