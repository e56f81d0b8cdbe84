"""Training of a depth network with the common training loop, and sheets of sample images.

    open -> train, RMSE in physical units on validation after every epoch -> the best epoch's
    weights -> errors by split and case -> depth.json, written last

The same command goes on from the newest checkpoint.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from data_prep.augment.contact_sheet import SheetRow, write_sheet
from data_prep.manifest.manifest import Manifest, Record
from data_prep.phrases import format_seconds
from finetune.depth.finish import finish
from finetune.depth.pairs import TEST, VALIDATION, DepthSet, case_of
from finetune.depth.session import DepthSession, open_session
from finetune.depth.settings import DepthConfig, RegressionSettings
from simclr_tf.training import callbacks as cb
from simclr_tf.training import health
from simclr_tf.training.batches import Batch, Batches, MakeExample, training_batches
from simclr_tf.training.callbacks import TensorBoard
from simclr_tf.training.distribution import Devices
from simclr_tf.training.fit import FitJob, Monitors, StopRequest, fit
from simclr_tf.training.workers import naming_lost_workers

_ROWS = 6

# images [n, H, W, 1] in [0, 1] -> likewise, on the networks' scale
Maker = Callable[[np.ndarray], np.ndarray]


def chosen_records(records: Sequence[Record], number: int = _ROWS) -> list[Record]:
    """A few records: the first of every case, then the second of each, ..."""
    cases: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        cases[case_of(record)].append(record)
    turns = chain.from_iterable(zip_longest(*(cases[name] for name in sorted(cases))))
    return [record for record in turns if record][:number]


def with_colors(values: np.ndarray, name: str = "viridis") -> np.ndarray:
    """Values in [0, 1], [..., 1], as colours uint8 [..., 3] of a map of Matplotlib."""
    from matplotlib import colormaps

    return np.asarray(colormaps[name](np.clip(values[..., 0], 0, 1), bytes=True))[..., :3]


class SampleSheets(keras.callbacks.Callback):
    """Draws a sheet every few epochs, and after the last one; for TensorBoard, too.

    Args:
        folder: `samples/`.
        images: To choose from; with targets or without.
        limits: Depths that the networks call 0 and 1; None if they make no depth maps.
        make: From images to the goal.
        back: From the goal to images; None if there is no way back.
        every: Epochs between sheets; 0 = only the last.
        last_step: After which the last sheet comes.
        board: Where the sheets go as well.
    """

    def __init__(
        self,
        folder: Path,
        images: DepthSet,
        limits: tuple[float, float] | None,
        make: Maker,
        back: Maker | None,
        every: int,
        last_step: int,
        board: TensorBoard,
    ) -> None:
        super().__init__()
        self._folder, self._make, self._back = folder, make, back
        self._every, self._last_step, self._board = every, last_step, board
        self._limits = limits
        self._records = chosen_records(images.records)
        self._images = images.images(self._records)
        self._targets = None
        if limits:
            low, high = limits
            self._targets = (images.targets(self._records) - low) / (high - low)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draws the sheet if one is due."""
        step = int((logs or {})["step"])
        if step < self._last_step and not (self._every and (epoch + 1) % self._every == 0):
            return
        file = self._folder / f"epoch_{epoch + 1:04d}.png"
        columns, pictures = self._pictures()
        rows = [
            SheetRow((case_of(record), Path(record.path).name), images)
            for record, *images in zip(self._records, *pictures, strict=True)
        ]
        write_sheet(file, f"Epoch {epoch + 1}", columns, rows)
        with Image.open(file) as sheet:
            self._board.image("samples", np.asarray(sheet.convert("RGB")), step)

    def _pictures(self) -> tuple[list[str], list[np.ndarray]]:
        """Names and pictures [n, H, W, C] of the columns."""
        made = self._make(self._images)
        if self._targets is None:
            columns = {"image": self._images, "translated": made}
        else:
            error = np.abs(made - self._targets)
            columns = {
                "image": self._images,
                "predicted": with_colors(made),
                "true": with_colors(self._targets),
                "error x 5": with_colors(5 * error, "magma"),
            }
        if self._back:
            columns["and back"] = self._back(made)
        return list(columns), list(columns.values())


log = logging.getLogger(__name__)

MONITOR = "validation/rmse"


def train_depth(config: DepthConfig, manifest: Manifest, devices: Devices) -> int:
    """Trains one network, or goes on where the same run was stopped.

    Args:
        config: All settings.
        manifest: From `open_manifest`.
        devices: The devices that it runs on.

    Returns:
        0, or 128 + the number of the signal that asked the run to stop.

    Raises:
        UserError: Something asked for is impossible; nothing has been overwritten then.
    """
    began = time.perf_counter()
    with naming_lost_workers():
        session = open_session(config, manifest, devices)
        return _trained(session, began)


def _trained(session: DepthSession, began: float) -> int:
    with session.claim:
        with StopRequest().listening() as stop:
            step = fit(_fitting(session), _restore(session), stop)
        if stop.signal:
            log.info(
                "stopped at step %d, which is saved; the same command goes on from there", step
            )
            return 128 + stop.signal
        if session.folder.is_complete():
            log.info("the run is complete: %s", session.folder.path)
            return 0
        finish(session)
    log.info("done in %s: %s", format_seconds(time.perf_counter() - began), session.folder.path)
    return 0


def _fitting(session: DepthSession) -> FitJob:
    best = None
    if session.validates and session.devices.is_chief:
        best = cb.BestCheckpoint(session.folder.path, MONITOR, "min")

    def validate(step: int) -> dict[str, float]:
        scores = _scores(session)
        _say(session, scores, step)
        return scores

    return FitJob(
        folder=session.folder,
        devices=session.devices,
        model=session.training.generator,
        step=lambda: session.training.step,
        plan=session.plan,
        store=session.store,
        train=session.data.train,
        keepers=lambda start: _keepers(session, start),
        batches=lambda start: _batches(session, start),
        validate=validate,
        due=lambda step: session.validates,
        best=best,
    )


def _restore(session: DepthSession) -> int:
    step = session.store.restore_latest()
    if step is not None:
        log.info("going on from ckpt-%d in %s", step, session.folder.path)
        return step
    images, plan = session.data.train.num_examples, session.plan
    seen = session.images_per_step
    for message in health.warnings_before_start(images, seen, plan.total_steps, "depth"):
        log.warning("%s", message)
    if not session.validates:
        log.warning("nothing to validate by: the last epoch's weights are taken")
    weights = sum(
        int(tf.size(v)) for n in session.training.networks.values() for v in n.trainable_variables
    )
    log.info(
        "training %s weights on %d images of %dx%d pixels, %d a step, %d steps, %d an epoch",
        f"{weights:,}", images, *session.data.size, seen, plan.total_steps, plan.checkpoint_steps,
    )  # fmt: skip
    return 0


def _keepers(session: DepthSession, start: int) -> Monitors:
    train, folder, plan = session.config.train, session.folder, session.plan
    watchers: list[keras.callbacks.Callback] = []
    judges: list[keras.callbacks.Callback] = []
    step_log = None
    if session.devices.is_chief:
        step_log = cb.StepLog(folder.metrics_file, start)
        board = cb.TensorBoard(folder.path)
        progress = cb.Progress(plan.total_steps, session.images_per_step, start)
        watchers = [progress, _sheets(session, board), board]
        judges = [cb.ValidationLog(folder.validation_file, start)]
    if train.early_stopping_patience:
        judges.append(
            keras.callbacks.EarlyStopping(
                MONITOR, patience=train.early_stopping_patience, mode="min"
            )
        )
    return Monitors(step_log, watchers, judges)


def _sheets(session: DepthSession, board: cb.TensorBoard) -> SampleSheets:
    data, training = session.data, session.training
    parts = (data.part(name) for name in (VALIDATION, TEST, data.train_split))
    images = next(part for part in parts if part)
    return SampleSheets(
        session.folder.samples,
        images,
        None if session.config.to_real else data.limits,
        _maker(training.generator),
        _maker(training.reverse) if training.reverse else None,
        session.config.train.sample_every,
        session.plan.total_steps,
        board,
    )


def _maker(network: keras.Model) -> Maker:
    forward = tf.function(lambda images: network(images, training=False))

    def make(images: np.ndarray) -> np.ndarray:
        return forward(tf.constant(images, tf.float32)).numpy()

    return make


def _batches(session: DepthSession, start: int) -> Batches:
    return training_batches(
        session.data.train,
        example_maker(session.config.optimizer),
        session.devices,
        session.images_per_step,
        session.config.machine.seed,
        start,
    )


def example_maker(settings: RegressionSettings) -> MakeExample:
    """Makes `image` [H, W, 2] of a pair and its seed: both are flipped, or neither."""

    def make(pair: tf.Tensor, seed: tf.Tensor) -> Batch:
        if settings.horizontal_flip:
            pair = tf.image.stateless_random_flip_left_right(pair, seed)
        if settings.vertical_flip:
            pair = tf.image.stateless_random_flip_up_down(pair, seed + 1)
        return {"image": pair}

    return make


def _scores(session: DepthSession) -> dict[str, float]:
    if session.validation is None:
        return {}
    return {f"{VALIDATION}/{name}": value for name, value in session.validation().items()}


def _say(session: DepthSession, scores: dict[str, float], step: int) -> None:
    epoch, unit = -(-step // session.plan.checkpoint_steps), session.config.data.unit
    text = ", ".join(
        f"{name.partition('/')[2].upper()} {value:.3f}{f' {unit}' if unit else ''}"
        for name, value in scores.items()
    )
    log.info("epoch %d: %s", epoch, f"validation {text}" if text else "nothing to validate by")
