"""A folder that is written in many steps: there whole or not at all, and taken up where it was."""

import fcntl
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from data_prep.errors import UserError
from data_prep.files import check_new_folder, write_text

_LOGGER = logging.getLogger(__name__)


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
            inside the block removes what is there.
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
            yield content
            content.replace(target)
        except UserError:
            shutil.rmtree(work)
            raise
        shutil.rmtree(work)
