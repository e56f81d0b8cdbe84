"""Training a depth network: the same loop as every other training.

    open -> train, RMSE in physical units on validation after every epoch -> the best epoch's
    weights -> errors by split and case -> depth.json, written last

The same command goes on from the newest checkpoint.
"""

import logging
import time

import keras
import numpy as np
import tensorflow as tf

from data_prep.durations import format_seconds
from data_prep.manifest.manifest import Manifest
from finetune.depth.data import TEST, VALIDATION
from finetune.depth.finish import finish
from finetune.depth.samples import Maker, SampleSheets
from finetune.depth.session import DepthSession, open_session
from finetune.depth.settings import DepthConfig, RegressionSettings
from simclr_tf.training import callbacks as cb
from simclr_tf.training import health
from simclr_tf.training.batches import Batch, Batches, MakeExample, training_batches
from simclr_tf.training.distribution import Devices
from simclr_tf.training.fit import Fitting, Keepers, fit
from simclr_tf.training.loop import StopRequest
from simclr_tf.training.workers import naming_lost_workers

log = logging.getLogger(__name__)

MONITOR = "validation/rmse"


def train_depth(config: DepthConfig, manifest: Manifest, devices: Devices) -> int:
    """Trains one network, or goes on where the same run was stopped.

    Args:
        config: All settings.
        manifest: From `open_manifest`.
        devices: What it runs on.

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


def _fitting(session: DepthSession) -> Fitting:
    best = None
    if session.validates and session.devices.is_chief:
        best = cb.BestCheckpoint(session.folder.path, MONITOR, "min")

    def validate(step: int) -> dict[str, float]:
        scores = _scores(session)
        _say(session, scores, step)
        return scores

    return Fitting(
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


def _keepers(session: DepthSession, start: int) -> Keepers:
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
    return Keepers(step_log, watchers, judges)


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
