"""A process that dies before one of its writes, without a process."""

import csv
import hashlib
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data_prep.storage import FILE as CHECKSUMS
from data_prep.storage import Checksums
from simclr_tf.checkpoints.read import read_tensors
from simclr_tf.training import callbacks as cb
from simclr_tf.training.run_warnings import WARNINGS_FILE, read_warnings

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


class Killed(BaseException):
    """What ends the work; nothing may handle it."""


class Writes:
    """Counts the writes below a folder, and dies before one of them, and all that come after.

    Attributes:
        seen: What was written, in order: the kind of write and the path relative to the folder.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._folder: str | None = None
        self._last = 0
        self._before: Callable[[int], None] | None = None
        sys.addaudithook(self._hear)  # hooks cannot be taken away, so there is one for all tests

    @contextmanager
    def below(
        self, folder: Path, last: int = 0, before: Callable[[int], None] | None = None
    ) -> Iterator[None]:
        """Listens for the length of the block.

        Args:
            folder: Writes elsewhere do not count.
            last: The number of the write that does not happen any more; 0 = all happen.
            before: Called with the number of each write before it happens.
        """
        self.seen, self._last, self._folder = [], last, os.path.realpath(folder)
        self._before = before
        try:
            yield
        finally:
            self._folder = None

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._folder is None:
            return
        if event == "open":
            path, _mode, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITING:
                return
        elif event in _EVENTS:
            path = arguments[0]
        else:
            return
        if not isinstance(path, str | os.PathLike):
            return
        full = os.path.abspath(os.fspath(path))
        if not full.startswith(self._folder) or os.path.basename(full).startswith(".lock"):
            return
        self.seen.append((event, os.path.relpath(full, self._folder)))
        if self._before:
            self._before(len(self.seen))
        if self._last and len(self.seen) >= self._last:
            raise Killed(self.seen[-1])


WRITES = Writes()


Run = Callable[[Path], int]
"""A whole command on a folder; returns its exit status."""

_LOGS = ("metrics.csv", "validation.csv", "history.csv")


def left(folder: Path) -> dict[str, Any]:
    """All that a run has left and that must not depend on interruptions, by name.

    Numbers are arrays; times and places are left out.
    """
    files = [p for p in folder.rglob("*") if p.is_file() and not _is_beside(p)]
    names = {str(p.relative_to(folder)): p for p in files}
    found: dict[str, Any] = {"names": sorted(names)}
    for name, file in names.items():
        if file.name in _LOGS:
            columns = cb.read_metrics(file)
            found |= {f"{name}: {n}": v for n, v in columns.items() if not n.endswith("seconds")}
        elif file.name == WARNINGS_FILE:
            found[name] = sorted(map(str, read_warnings(file)))
        elif file.name.endswith(".csv"):
            found[name] = [
                [_number(cell) for cell in row] for row in csv.reader(file.read_text().splitlines())
            ]
        elif file.name.endswith(".json") and file.name != CHECKSUMS:
            found[name] = json.loads(file.read_text().replace(str(folder), "FOLDER"))
        elif file.name.endswith(".html"):
            found[name] = re.findall(r"<h[12][^>]*>.*?</h[12]>", file.read_text())
        elif file.name.endswith(".index") and file.name.startswith("ckpt-"):
            read = read_tensors(str(file.with_suffix("")))
            found |= {f"{name}: {k}": v for k, v in read.items() if v.dtype.kind == "f"}
        elif file.name.endswith(".keras"):
            found |= {f"{name}: {key}": value for key, value in _weights(file).items()}
    for sums in folder.rglob(CHECKSUMS):
        known = json.loads(sums.read_text())
        where = sums.relative_to(folder)
        found[f"sums of {where}"] = sorted(known)
        found[f"faults of {where}"] = {n: Checksums(sums.parent).fault(n) for n in known}
    return found


def _weights(file: Path) -> dict[str, np.ndarray]:
    """The arrays in a `.keras` file, by name."""
    found: dict[str, np.ndarray] = {}

    def note(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with zipfile.ZipFile(file) as parts, h5py.File(parts.open("model.weights.h5")) as arrays:
        arrays.visititems(note)
    return found


def _is_beside(file: Path) -> bool:
    return "tfevents" in file.name or file.name.startswith(".lock")


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def assert_same(found: Any, wanted: Any, what: str) -> None:
    """Two results of `left` are the same, but for the last digits of numbers."""
    if isinstance(wanted, dict):
        assert sorted(found) == sorted(wanted), what
        for key in wanted:
            if key != "command":  # of environment.json
                assert_same(found[key], wanted[key], f"{what}: {key}")
    elif isinstance(wanted, list) and not all(isinstance(value, str) for value in wanted):
        assert len(found) == len(wanted), what
        for i, (one, other) in enumerate(zip(found, wanted, strict=True)):
            assert_same(one, other, f"{what}: {i}")
    elif isinstance(wanted, np.ndarray | float):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5, err_msg=what)
    elif isinstance(wanted, list):
        assert not set(found) ^ set(wanted), f"{what}: {set(found) ^ set(wanted)}"
        assert found == wanted, what
    else:
        assert found == wanted, what


def die_and_go_on(run: Run, folder: Path, lasts: Iterable[int]) -> list[tuple[str, str]]:
    """Each process dies before its n-th write, the next goes on; returns where they died."""
    deaths = []
    for last in lasts:
        with WRITES.below(folder, last=last), suppress(Killed):
            assert run(folder) == 0
        if len(WRITES.seen) < last:
            return deaths
        deaths.append(WRITES.seen[last - 1])
    raise AssertionError("the run never came to its end")


def check_series(run: Run, tmp_path: Path, first: int, stride: int) -> None:
    """A run that dies again and again, each time some writes later, is as one that does not."""
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    assert run(whole) == 0
    deaths = die_and_go_on(run, killed, range(first, 10_000, stride))
    assert len(deaths) >= 2, "the stride is too long"
    assert_same(left(killed), left(whole), f"deaths at {deaths}")


def check_every_write(run: Run, tmp_path: Path) -> int:
    """A run that is killed before any of its writes ends as one that is not.

    The folder is copied before each write of one run: so would a kill leave it. Copies that differ
    in half written files alone count as one, for these files are of no use to anybody.

    Returns:
        How many writes there are.
    """
    folder, states = tmp_path / "run", tmp_path / "states"
    kept: dict[str, tuple[int, int]] = {}  # state -> half written files, number of the write

    def keep(number: int) -> None:
        state, halves = _state(folder)
        before = kept.get(state)
        if before and before[0] > halves:
            return
        if before:
            shutil.rmtree(states / str(before[1]))
        kept[state] = halves, number
        if folder.exists():
            shutil.copytree(folder, states / str(number))
        else:
            (states / str(number)).mkdir(parents=True)

    with WRITES.below(folder, before=keep):
        assert run(folder) == 0
    wanted, seen = left(folder), list(WRITES.seen)
    for _, number in kept.values():
        shutil.rmtree(folder)
        shutil.move(states / str(number), folder)
        assert run(folder) == 0
        what = f"killed before write {number} of {len(seen)}: {seen[number - 1]}"
        assert_same(left(folder), wanted, what)
    print(f"{len(seen)} writes, {len(kept)} states")
    return len(seen)


_HALF = re.compile(r"\..+\.\w{8}|\.partial")


def _state(folder: Path) -> tuple[str, int]:
    """Hash of what a folder holds, but for half written files; and how many there are of these."""
    digest, halves = hashlib.sha256(), 0
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if any(_HALF.fullmatch(part) for part in name.split("/")):
            halves += 1
        elif not _is_beside(file):
            digest.update(name.encode() + (file.read_bytes() if file.is_file() else b""))
    return digest.hexdigest(), halves
