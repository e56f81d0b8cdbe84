"""A folder that is written in many steps: there whole or not at all, and taken up where it was."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from data_prep.errors import FullDiskError, UserError
from data_prep.storage import check_new_folder, naming_full_disk, write_text

_LOGGER = logging.getLogger(__name__)

COMPLETE = ".complete.json"
"""What a finished folder tells of itself: the plan that it was written by, and what is in it."""


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

    What an interrupted or killed call of the same plan has left in it is still there: whoever
    fills it skips what it finds. So files must be put there whole (under another name first).

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
            _LOGGER.info("going on where an interrupted call has left %s", target)
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
    """Notes in a folder that all that a plan asks for is there.

    Args:
        folder: The whole content.
        plan: Hash of all that decides it.
    """
    write_text(folder / COMPLETE, json.dumps({"plan": plan, "content": listing(folder)}) + "\n")


def may_be_complete(target: Path) -> bool:
    """Whether a folder says of itself that it was finished, by whatever plan."""
    return (target.expanduser() / COMPLETE).is_file()


def is_complete(target: Path, plan: str) -> bool:
    """Whether a folder holds what this plan has written: the same command was given before.

    Args:
        target: The folder.
        plan: Hash of all that decides the content.

    Returns:
        Whether it does, no file being gone or of another size; the rest of an interrupted call is
        removed then.
    """
    target = target.expanduser().absolute()
    try:
        noted = json.loads((target / COMPLETE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if noted != {"plan": plan, "content": listing(target)}:
        return False
    shutil.rmtree(target.with_name(f".{target.name}.partial"), ignore_errors=True)
    _LOGGER.info("%s is complete: the same command has written it before", target)
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
