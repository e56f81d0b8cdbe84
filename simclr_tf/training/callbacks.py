"""Keras callbacks that tell what a run does: progress, CSV, TensorBoard, best checkpoint.

The loop calls them as Keras would: a "batch" is one loop of steps, an "epoch" the interval between
two checkpoints. `logs` holds `step` and the mean of every metric over the batch or interval.
"""

import csv
import hashlib
import io
import logging
import shutil
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from data_prep.cli.runtime import progress_bar, shows_bars
from data_prep.csv_files import csv_text
from data_prep.errors import UserError
from data_prep.phrases import format_seconds
from data_prep.storage import Checksums, read_checked, write_bytes, write_text, writing
from simclr_tf.checkpoints.find import NOTE
from simclr_tf.checkpoints.read import read_tensors
from simclr_tf.checkpoints.store import checkpoint_files, checkpoint_steps

log = logging.getLogger(__name__)


_FEWER_BESIDE_A_BAR = 6


class Progress(keras.callbacks.Callback):
    """Logs step, loss, images per second and time left, every few seconds.

    Where a bar can be drawn, it shows the steps between the lines, which are then fewer.

    Args:
        total_steps: Steps of the whole run.
        batch_size: Images of a global batch.
        start_step: Steps already taken.
        every: Seconds between two lines.
    """

    def __init__(
        self, total_steps: int, batch_size: int, start_step: int, every: float = 10.0
    ) -> None:
        super().__init__()
        self._total, self._batch_size, self._every = total_steps, batch_size, every
        self._last_step = self._first_step = start_step
        self._last_time = self._first_time = time.perf_counter()
        self.images_per_second = 0.0
        self._bar = progress_bar("steps", total_steps, start_step) if shows_bars() else None
        if self._bar is not None:
            self._every *= _FEWER_BESIDE_A_BAR

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts the steps; the first loop, which traces the graph, does not count for the rate."""
        logs = logs or {}
        step, now = int(logs["step"]), time.perf_counter()
        if batch == 0:
            self._first_step, self._first_time = step, now
        elif step > self._first_step:
            elapsed = now - self._first_time
            self.images_per_second = (step - self._first_step) * self._batch_size / elapsed
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        if now - self._last_time >= self._every or step >= self._total:
            self._last_time, self._last_step = now, step
            self._line(step, logs)

    def _line(self, step: int, logs: dict[str, Any]) -> None:
        # The total is no guide in pretraining: most of it may be the linear probe's.
        names = ("contrast_loss", "pretrain_loss", "total_loss")
        name = next(name for name in names if name in logs)
        line = f"step {step}/{self._total}  {name} {logs[name]:.4f}"
        if self.images_per_second:
            left = (self._total - step) * self._batch_size / self.images_per_second
            line += f"  {self.images_per_second:.0f} images/s  {format_seconds(left)} left"
        log.info("%s", line)


class StepLog(keras.callbacks.Callback):
    """Writes one CSV row a step; rows after the step that a run goes on from are dropped.

    Args:
        path: `metrics.csv`.
        start_step: Steps already taken.
        exact: Write numbers to the last digit of a double.
        index: Name of the first column.
    """

    def __init__(
        self, path: Path, start_step: int, exact: bool = False, index: str = "step"
    ) -> None:
        super().__init__()
        self._path, self._index = path, index
        self._digits = 17 if exact else 9
        self._sums = Checksums(path.parent)
        self._columns: list[str] = []
        self._size, self._hash = 0, hashlib.sha256()
        self._fault = self._sums.fault(path.name) if start_step else ""
        self._rows = 0
        if path.exists() or self._fault:
            columns, rows = read_rows(path, start_step, index) if path.exists() else ([], [])
            unsound = self._fault or not rows
            if start_step and unsound and path.exists() and path.stat().st_size:
                shutil.copyfile(path, self._aside)
            self.rewrite(columns, rows)
            self.seal()
            self._rows = len(rows)

    @property
    def _aside(self) -> Path:
        """The path that a damaged log is moved to."""
        return self._path.with_name(f"{self._path.name}.damaged")

    def values(self, first_step: int, last_step: int) -> dict[str, np.ndarray]:
        """The columns over some of the steps that have been written; empty without such rows."""
        columns, rows = read_rows(self._path, last_step, self._index)
        found = [[float(cell or "nan") for cell in row[1:]]
                 for row in rows if int(row[0]) >= first_step]  # fmt: skip
        return dict(zip(columns[1:], np.array(found).T, strict=True)) if found else {}

    def say_lost(self, expected: int) -> None:
        """Warns if rows of a run that goes on are damaged or gone: nothing brings them back.

        Args:
            expected: Rows that should be there.
        """
        if self._fault or self._rows < expected:
            log.warning(
                "%s %s: %d of %d rows can be read; the run goes on without the others",
                self._path,
                self._fault or "is not whole",
                self._rows,
                expected,
            )

    def write(self, first_step: int, metrics: dict[str, np.ndarray]) -> None:
        """Appends the rows of some steps.

        Args:
            first_step: Number of the first step (counting from 1).
            metrics: Values [n] of every column.

        Raises:
            UserError: The file cannot be written.
        """
        columns = [self._index, *metrics]
        if self._columns and set(self._columns) != set(columns):
            self._set_aside()
        lines = [] if self._columns else [columns]
        self._columns = self._columns or columns
        for i in range(len(next(iter(metrics.values())))):
            row = {name: values[i] for name, values in metrics.items()}
            lines.append(self._cells(first_step + i, row, self._columns))
        content = csv_text(lines).encode()
        with writing(self._path), self._path.open("ab") as file:
            file.write(content)
        self._size += len(content)
        self._hash.update(content)

    def _cells(self, step: int, values: Mapping[str, float], columns: list[str]) -> list[str]:
        numbers = {name: f"{value:.{self._digits}g}" for name, value in values.items()}
        row = {self._index: str(step), **numbers}
        return [row.get(name, "") for name in columns]

    def seal(self) -> None:
        """Notes the checksum of what has been written."""
        self._sums.note(self._path.name, self._size, self._hash.hexdigest())

    def rewrite(self, columns: list[str], rows: list[list[str]]) -> None:
        """Replaces the whole file, in one step; without rows it begins anew."""
        content = csv_text([columns, *rows]).encode() if rows else b""
        self._columns = columns if rows else []
        self._sums.forget(self._path.name)
        write_bytes(self._path, content)
        self._size, self._hash = len(content), hashlib.sha256(content)

    def write_all(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Replaces the whole file by the values of these steps."""
        # In the order in which Keras hands over the logs of callbacks.
        columns = [self._index, *sorted({name for row in rows.values() for name in row})]
        self.rewrite(columns, [self._cells(step, row, columns) for step, row in rows.items()])
        self.seal()

    def _set_aside(self) -> None:
        """Renames a log that has other columns, and begins anew."""
        name = self._aside.name
        log.warning("%s has other columns than this run writes: kept as %s", self._path, name)
        self._sums.forget(self._path.name)
        self._path.replace(self._aside)
        self._columns, self._size, self._hash = [], 0, hashlib.sha256()


def mend_step_log(path: Path, last_step: int) -> None:
    """Keeps the sound rows of a damaged log of a run that is at its end, and says what is lost.

    Args:
        path: `metrics.csv`.
        last_step: Where the run has ended.
    """
    sums = Checksums(path.parent)
    if path.name in sums.names():
        sound = not sums.fault(path.name)
    else:
        sound = path.exists() and len(read_rows(path, last_step)[1]) == last_step
    if not sound:
        StepLog(path, last_step).say_lost(last_step)


def read_rows(path: Path, last_step: int, index: str = "step") -> tuple[list[str], list[list[str]]]:
    """Reads the sound rows of a log up to a step; what is damaged or half written is left out.

    Args:
        path: What `StepLog` wrote.
        last_step: Rows of later steps are left out.
        index: Name of the first column.

    Returns:
        The names of the columns, and the cells of every row, by rising step.
    """
    text = path.read_bytes().decode(errors="replace")
    whole = text.rpartition("\n")[0]
    header, *rows = list(csv.reader(io.StringIO(whole.replace("\0", "")))) or [[]]
    if header[:1] != [index] or len(set(header)) != len(header):
        return [], []
    sound: dict[int, list[str]] = {}
    for row in rows:
        if len(row) != len(header) or not row[0].isdecimal() or not _are_numbers(row[1:]):
            continue
        if max(sound, default=0) < int(row[0]) <= last_step:
            sound[int(row[0])] = row
    return header, list(sound.values())


def _are_numbers(cells: list[str]) -> bool:
    try:
        return bool([float(cell or "nan") for cell in cells])
    except ValueError:
        return False


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Reads a CSV of numbers, such as `metrics.csv`, by column; empty cells become NaN.

    Raises:
        UserError: It is damaged.
    """
    rows = list(csv.DictReader(io.StringIO(read_checked(path))))
    columns = rows[0].keys() if rows else ()
    try:
        return {name: np.array([float(r[name] or "nan") for r in rows]) for name in columns}
    except (ValueError, TypeError):
        raise UserError(f"{path} is damaged: not all of its cells are numbers") from None


class ValidationLog(keras.callbacks.Callback):
    """Writes one CSV row a validation; what it knows of earlier ones survives a restart.

    Args:
        path: `validation.csv`.
        start_step: Steps already taken.
        splits: Whose scores are written, `SPLIT/...`.
    """

    def __init__(
        self, path: Path, start_step: int, splits: tuple[str, ...] = ("validation",)
    ) -> None:
        super().__init__()
        # Exact, so that after a restart equals are still equals.
        self._log = StepLog(path, start_step, exact=True)
        self._prefixes = tuple(f"{split}/" for split in splits)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes what the validation, if there was one, added to the logs."""
        logs = logs or {}
        if values := self._values(logs):
            arrays = {name: np.array([value]) for name, value in values.items()}
            self._log.write(int(logs["step"]), arrays)
            self._log.seal()

    def replace_all(self, validations: Sequence[dict[str, Any]]) -> None:
        """Writes the whole log anew."""
        self._log.write_all({int(logs["step"]): self._values(logs) for logs in validations})

    def _values(self, logs: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in logs.items() if name.startswith(self._prefixes)}


class TensorBoard(keras.callbacks.Callback):
    """Writes scalars and a sheet of augmented views for TensorBoard.

    Args:
        directory: The folder of the event files.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._file = directory / "events.out.tfevents.*"
        self._writer = tf.summary.create_file_writer(str(directory))

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        """Writes a picture [H, W, 3], uint8."""
        with writing(self._file), self._writer.as_default():
            tf.summary.image(name, picture[np.newaxis], step=step)
            self._writer.flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the interval's scalars."""
        logs = dict(logs or {})
        step = int(logs.pop("step"))
        with writing(self._file), self._writer.as_default():
            for name, value in logs.items():
                plain = "/" in name or name == "learning_rate"
                tf.summary.scalar(name if plain else f"train/{name}", value, step=step)
            self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the event file."""
        self._writer.close()


class BestCheckpoint(keras.callbacks.Callback):
    """Keeps a copy of the checkpoint that validated best.

    Args:
        directory: The run's folder; the copy goes to its `best/`.
        monitor: Name of the score that decides.
        mode: `max`, or `min` if it is to be smallest.
        tie_breaker: Name of the score that decides between equals, the smaller the better; empty =
            the first is kept.
    """

    def __init__(
        self,
        directory: Path,
        monitor: str,
        mode: Literal["max", "min"] = "max",
        tie_breaker: str = "",
    ) -> None:
        super().__init__()
        self._directory, self._monitor, self._tie_breaker = directory, monitor, tie_breaker
        self._best = directory / "best"
        self._sign = 1 if mode == "max" else -1
        self._forget()

    def _forget(self) -> None:
        self._highest, self._step = (-np.inf, -np.inf), 0

    def remember(self, logs: dict[str, Any]) -> bool:
        """Notes a validation; returns True if it is the best yet."""
        value = self._sign * logs.get(self._monitor, np.nan)
        key = (value, -logs.get(self._tie_breaker, 0.0))
        if np.isnan(value) or not key > self._highest:
            return False
        self._highest, self._step = key, int(logs["step"])
        return True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Copies the checkpoint just written if its validation is the best yet."""
        if self.remember(logs or {}):
            self._copy(self._step)

    def settle(self, validations: Sequence[dict[str, Any]], redone: Collection[int] = ()) -> None:
        """Takes up the validations of a run that goes on, and mends the copy of the best.

        If the copy of the best is gone or damaged, it is made again; if its original is gone too,
        the best of the checkpoints that are left takes its place, which is logged.

        Args:
            validations: In their order, each with its `step`.
            redone: Steps whose validation a kill has interrupted, so that their checkpoint may
                not have been copied either.
        """
        self._forget()
        for logs in validations:
            self.remember(logs)
        best = self._step
        if not best:
            return
        if self._is_sound(self._best, best):
            self._name(best)
        elif self._is_sound(self._directory, best):
            if best not in redone:
                log.warning("%s is not whole: ckpt-%d is copied there again", self._best, best)
            self._copy(best)
        else:
            self._take_what_is_left(best, validations)

    def _take_what_is_left(self, best: int, validations: Sequence[dict[str, Any]]) -> None:
        left = [s for s in checkpoint_steps(self._directory) if self._is_sound(self._directory, s)]
        self._forget()
        for logs in validations:
            if int(logs["step"]) in left:
                self.remember(logs)
        log.warning(
            "%s: ckpt-%d, which validated best, is gone or damaged, and so is its original; %s",
            self._best,
            best,
            f"the best that is left is ckpt-{self._step}" if self._step else "none is left",
        )
        if self._step:
            self._copy(self._step)

    @staticmethod
    def _is_sound(folder: Path, step: int) -> bool:
        if not (folder / f"ckpt-{step}.index").exists():
            return False
        try:
            read_tensors(str(folder / f"ckpt-{step}"))
        except UserError as error:
            log.warning("%s", error)
            return False
        return True

    def _copy(self, step: int) -> None:
        """Copies a checkpoint, its index last; the one before goes when the new one is named."""
        self._best.mkdir(exist_ok=True)
        for file in reversed(checkpoint_files(self._directory, step)):
            part, target = self._best / f".{file.name}", self._best / file.name
            with writing(target):
                shutil.copyfile(file, part)
                part.replace(target)
        self._name(step)

    def _name(self, step: int) -> None:
        """Names the best in TensorFlow's note, relative so that the run may be moved."""
        name = f"ckpt-{step}"
        text = f'model_checkpoint_path: "{name}"\n'
        note = self._best / NOTE
        if not note.exists() or note.read_bytes() != text.encode():
            write_text(note, text)
        for file in self._best.iterdir():
            if file.name != NOTE and not file.name.startswith(f"{name}."):
                file.unlink()


def replay(
    validations: Sequence[dict[str, Any]],
    judges: Iterable[keras.callbacks.Callback],
    redone: Collection[int] = (),
) -> None:
    """Tells best checkpoint and early stopping what earlier validations of a run gave.

    Args:
        validations: In their order, each with its `step`.
        judges: Callbacks of validations.
        redone: See `BestCheckpoint.settle`.
    """
    for judge in judges:
        if isinstance(judge, BestCheckpoint):
            judge.settle(validations, redone)
        elif not isinstance(judge, ValidationLog):
            for i, logs in enumerate(validations):
                judge.on_epoch_end(i, dict(logs))
