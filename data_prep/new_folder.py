"""A folder that is written at one go: there whole, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.claim import claimed
from data_prep.storage import check_new_folder, naming_full_disk


@contextmanager
def new_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """The folder to fill, hidden beside the target; it becomes the target at the end of the block.

    If the block fails or is interrupted, nothing is left. (`partial.partial_folder` is for long
    work that is to go on where it was.)

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
