"""Keras callbacks that tell what a run does: progress, CSV, TensorBoard, best checkpoint.

The loop calls them as Keras would: a "batch" is one loop of steps, an "epoch" the interval between
two checkpoints. `logs` holds `step` and the mean of every metric over the batch or interval.
"""

import csv
import logging
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from data_prep.durations import format_seconds
from data_prep.files import write_text

log = logging.getLogger(__name__)


class Progress(keras.callbacks.Callback):
    """Logs step, loss, images per second and time left, every few seconds.

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

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts the steps; the first loop, which traces the graph, does not count for the rate."""
        logs = logs or {}
        step, now = int(logs["step"]), time.perf_counter()
        if batch == 0:
            self._first_step, self._first_time = step, now
        elif step > self._first_step:
            elapsed = now - self._first_time
            self.images_per_second = (step - self._first_step) * self._batch_size / elapsed
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
        self._columns: list[str] = []
        if path.exists():
            _drop_rows_after(path, start_step)
            with path.open(newline="") as file:
                self._columns = next(csv.reader(file), [])

    def write(self, first_step: int, metrics: dict[str, np.ndarray]) -> None:
        """Appends the rows of some steps.

        Args:
            first_step: Number of the first step (counting from 1).
            metrics: Values [n] of every column.
        """
        columns = [self._index, *metrics]
        with self._path.open("a", newline="") as file:
            writer = csv.writer(file)
            if not self._columns:
                writer.writerow(columns)
                self._columns = columns
            for i in range(len(next(iter(metrics.values())))):
                numbers = {k: f"{v[i]:.{self._digits}g}" for k, v in metrics.items()}
                row = {self._index: first_step + i} | numbers
                writer.writerow([row[name] for name in self._columns])


def _drop_rows_after(path: Path, step: int) -> None:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    whole = [r for r in rows[1:] if len(r) == len(rows[0]) and r[0].isdigit() and int(r[0]) <= step]
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *whole] if whole else [])
    temporary.replace(path)


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Reads a CSV of numbers, such as `metrics.csv`, by column; empty cells become NaN."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = rows[0].keys() if rows else ()
    return {name: np.array([float(r[name] or "nan") for r in rows]) for name in columns}


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
        values = {k: np.array([v]) for k, v in logs.items() if k.startswith(self._prefixes)}
        if values:
            self._log.write(int(logs["step"]), values)


class TensorBoard(keras.callbacks.Callback):
    """Writes scalars and a sheet of augmented views for TensorBoard.

    Args:
        directory: Where the event files go.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(directory))

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        """Writes a picture [H, W, 3], uint8."""
        with self._writer.as_default():
            tf.summary.image(name, picture[np.newaxis], step=step)
        self._writer.flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the interval's scalars."""
        logs = dict(logs or {})
        step = int(logs.pop("step"))
        with self._writer.as_default():
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
        monitor: What is to be largest.
        mode: `max`, or `min` if it is to be smallest.
        tie_breaker: What decides between equals: the smaller is better; empty = the first.
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
        self._sign = 1 if mode == "max" else -1
        self._highest = (-np.inf, -np.inf)

    def remember(self, logs: dict[str, Any]) -> bool:
        """Takes note of a validation; whether it is the best yet."""
        value = self._sign * logs.get(self._monitor, np.nan)
        key = (value, -logs.get(self._tie_breaker, 0.0))
        if np.isnan(value) or not key > self._highest:
            return False
        self._highest = key
        return True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Copies the checkpoint just written if its validation is the best yet."""
        logs = logs or {}
        if not self.remember(logs):
            return
        target, name = self._directory / "best", f"ckpt-{int(logs['step'])}"
        target.mkdir(exist_ok=True)
        old = list(target.glob("ckpt-*"))
        for file in self._directory.glob(f"{name}.*"):
            shutil.copy2(file, target / file.name)
        # TensorFlow's note of what the folder means, relative so that the run may be moved.
        write_text(target / "checkpoint", f'model_checkpoint_path: "{name}"\n')
        for file in old:
            if not file.name.startswith(f"{name}."):
                file.unlink()


def replay(path: Path, start_step: int, judges: Iterable[keras.callbacks.Callback]) -> None:
    """Tells best checkpoint and early stopping what earlier validations of a run gave.

    Args:
        path: What `ValidationLog` wrote, rows after `start_step` dropped.
        start_step: Steps already taken; at 0 there was nothing before.
        judges: Callbacks of validations.
    """
    if not start_step or not path.exists():
        return
    columns = read_metrics(path)
    for i in range(len(columns.get("step", ()))):
        logs = {name: float(values[i]) for name, values in columns.items()}
        for judge in judges:
            if isinstance(judge, BestCheckpoint):
                judge.remember(logs)  # the copy is there; the original may be gone
            elif not isinstance(judge, ValidationLog):
                judge.on_epoch_end(i, logs)
