"""Features on their way to disk: shards that are each there whole or not at all.

Several processes fill one hidden folder beside the target, each its own shards; what a killed one
has left is taken up by its next call. Whoever finds all shards complete joins them.
"""

import fcntl
import io
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.errors import UserError
from data_prep.storage import LOCK, claimed, read_object, write_bytes, write_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardPlan:
    """Division of images into shards.

    Attributes:
        images: Their number.
        shard_images: Images of a shard; the last may have fewer.
        key: Hash of all that decides the features.
    """

    images: int
    shard_images: int
    key: str

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self.images // self.shard_images)

    def rows(self, shard: int) -> range:
        """The images of a shard, by their number."""
        start = shard * self.shard_images
        return range(start, min(start + self.shard_images, self.images))


@dataclass(frozen=True)
class Shards:
    """The shards of a plan in a folder.

    Attributes:
        folder: The folder that they lie in.
        plan: How images are dealt out.
    """

    folder: Path
    plan: ShardPlan

    def missing(self, worker: int = 0, num_workers: int = 1) -> list[int]:
        """The shards of a worker (every num_workers-th) that are not complete."""
        mine = range(worker, self.plan.shards, num_workers)
        return [shard for shard in mine if not self._marker(shard).exists()]

    def write(self, shard: int, features: np.ndarray, unreadable: dict[int, str]) -> None:
        """Keeps a shard.

        Args:
            shard: Its number.
            features: [n, d], a row for each of its images; rows of unreadable images do not count.
            unreadable: Position in the shard -> what is wrong with the file.
        """
        content = io.BytesIO()
        np.save(content, features)
        write_bytes(self._file(shard), content.getvalue())
        marker = {"rows": len(features), "unreadable": unreadable}
        write_text(self._marker(shard), json.dumps(marker) + "\n")

    def read(self, shard: int) -> tuple[np.ndarray, dict[int, str]]:
        """Reads a shard: its features, and what is wrong with unreadable images by position."""
        noted = read_object(self._marker(shard))["unreadable"]
        return np.load(self._file(shard)), {int(row): why for row, why in noted.items()}

    def unreadable(self) -> dict[int, str]:
        """Number of an unreadable image -> what is wrong with it, over all shards."""
        found: dict[int, str] = {}
        for shard in range(self.plan.shards):
            noted = read_object(self._marker(shard))["unreadable"]
            start = self.plan.rows(shard).start
            found |= {start + int(row): why for row, why in noted.items()}
        return found

    def _file(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.npy"

    def _marker(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.json"


@contextmanager
def open_shards(target: Path, plan: ShardPlan, worker: int = 0) -> Iterator[Shards]:
    """The shards of a plan, hidden beside the target; they stay after the block.

    Args:
        target: The folder that they are to become.
        plan: Shards of another plan are removed, if nobody is writing them.
        worker: The number of this process; there may be one of each number at a time.

    Raises:
        UserError: Another process is writing other features to the same target, or is the same
            worker.
    """
    work = _work_folder(target)
    busy = (
        f"another process (worker {worker}) is writing {target}; wait for it to end, or give each "
        "process its own --worker"
    )
    with claimed(work, busy, f"{LOCK}-{worker}"), open(work / "lock", "w") as lock:
        _agree(lock.fileno(), work, plan)
        yield Shards(work / "shards", plan)


def _work_folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _agree(lock: int, work: Path, plan: ShardPlan) -> None:
    """Makes the folder one of this plan, which it stays while the shared lock is held."""
    noted, shards = work / "plan", work / "shards"
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("other processes are at work on the same features")
    else:
        if not noted.exists() or noted.read_text(encoding="utf-8") != plan.key:
            shutil.rmtree(shards, ignore_errors=True)
            shards.mkdir()
            write_text(noted, plan.key)
        elif any(shards.iterdir()):
            log.info("going on where an earlier call has left off")
    fcntl.flock(lock, fcntl.LOCK_SH)
    if noted.read_text(encoding="utf-8") != plan.key:
        raise UserError(
            "another process is writing other features (encoder, images or settings differ) to "
            "the same --output; wait for it to end, or give another"
        )


@contextmanager
def the_one_that_joins(target: Path) -> Iterator[Path | None]:
    """Yields a free path to join shards at to one process at a time; None to all others."""
    work = _work_folder(target)
    with open(work / "joining", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        place = work / "joined"
        shutil.rmtree(place, ignore_errors=True)
        yield place


def remove_shards(target: Path) -> None:
    """Removes what was kept beside a target, once the target is there."""
    shutil.rmtree(_work_folder(target), ignore_errors=True)
