"""Training a classifier: the part that fine-tuning and transfer learning share.

    open -> train, validate after every epoch -> the best epoch's weights -> score all splits,
    test among them for the first and only time -> export -> report

The loop is that of `simclr-run`: the same command goes on from the newest checkpoint.
"""

import logging
import math
import time
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from data_prep.augment.contact_sheet import tiled
from data_prep.phrases import format_seconds
from finetune.config import ClassifierConfig
from finetune.data import VALIDATION
from finetune.epoch_scores import FeatureScorer, epoch_scores
from finetune.finish import finish, write_views
from finetune.session import ClassifierJob, ClassifierSession, open_session, part_hashes, start_head
from simclr_tf.training import callbacks as cb
from simclr_tf.training import fit as fitting
from simclr_tf.training import health
from simclr_tf.training.batches import Batches, training_batches
from simclr_tf.training.fit import FitJob, Monitors, StopRequest
from simclr_tf.training.frozen_features import feature_batches
from simclr_tf.training.run_warnings import RunWarnings, noting_warnings
from simclr_tf.training.workers import naming_lost_workers

log = logging.getLogger(__name__)

_FAR_ABOVE = 1.25  # times the loss of guessing
_EARLY = 0.25  # of all steps: later a high loss is overfitting


def guessing_loss(labels: np.ndarray) -> float:
    """Log loss in nats of predicting the shares of the classes for every image.

    Args:
        labels: Class numbers int [n]; -1 = not known.
    """
    counts = np.bincount(labels[labels >= 0])
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


class SpoiltFeatures(keras.callbacks.Callback):
    """Warns if, early in training, the validation loss is far above that of guessing.

    Args:
        labels: Class numbers of the validation images, int [n].
        total_steps: Updates planned.
        frozen: Whether the head alone trains.
    """

    def __init__(self, labels: np.ndarray, total_steps: int, frozen: bool) -> None:
        super().__init__()
        self._chance = guessing_loss(labels)
        self._until = math.ceil(_EARLY * total_steps)
        self._frozen = frozen
        self._said = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the validation of the epoch that ends."""
        logs = logs or {}
        loss = logs.get("validation/loss", 0.0)
        early = epoch == 0 or logs.get("step", 0) <= self._until
        if self._said or not early or not self._chance or loss <= _FAR_ABOVE * self._chance:
            return
        self._said = True
        why = "the head's steps are too large; take a lower --learning_rate or --head_start=probe"
        if not self._frozen:
            why = (
                "training destroys what the network knew before it learns anything; a lower "
                "--learning_rate, --warmup_epochs, --head_start=probe, --layer_decay=0.75 or "
                "--head_only protect it"
            )
        log.warning(
            "validation loss %.2f after epoch %d, where guessing by the classes' shares gives "
            "%.2f: %s", loss, epoch + 1, self._chance, why,
        )  # fmt: skip


def train_classifier(
    config: ClassifierConfig, recipe: ClassifierJob, command: Sequence[str] = ()
) -> int:
    """Trains, scores, exports and reports, or goes on where the same run was stopped.

    Args:
        config: All settings.
        recipe: The part of the run that is the command's own.
        command: Program and arguments, for the report.

    Returns:
        0, or 128 + the number of the signal that asked the run to stop.

    Raises:
        UserError: Something asked for is impossible; nothing has been overwritten then.
    """
    with noting_warnings() as kept, naming_lost_workers():
        return _train(config, recipe, command, kept)


def _train(
    config: ClassifierConfig, recipe: ClassifierJob, command: Sequence[str], kept: RunWarnings
) -> int:
    began = time.perf_counter()
    session = open_session(config, recipe)
    keep_warnings(session, kept)
    with session.claim:
        with StopRequest().listening() as stop:
            step = fit(session, stop)
        if stop.signal:
            log.info(
                "stopped at step %d, which is saved; the same command goes on from there", step
            )
            return 128 + stop.signal
        if session.folder.is_complete():
            log.info("the run is complete: %s", session.folder.report_page)
            return 0
        finish(session, command)
    log.info("done in %s: %s", format_seconds(time.perf_counter() - began), config.run.output)
    return 0


def keep_warnings(session: ClassifierSession, kept: RunWarnings) -> None:
    """Keeps the warnings of a run in its folder."""
    if session.devices.is_chief:
        kept.keep_in(session.folder.warnings_file)
        kept.alarm(session.remarks)


def fit(session: ClassifierSession, stop: StopRequest) -> int:
    """Trains from the newest checkpoint, or from the start, to the end or until asked to stop.

    Args:
        session: The opened run.
        stop: The request to stop.

    Returns:
        The step reached; its checkpoint is on disk.

    Raises:
        DivergedError: A number became NaN or infinite; the last checkpoint is kept.
    """
    start, train = _restore(session), session.config.train
    score = epoch_scores(session.data, session.scorer, score_train=train.score_train)

    def validate(step: int) -> dict[str, float]:
        scores = score(step)
        _say(scores, step, session)
        return scores

    return fitting.fit(
        FitJob(
            folder=session.folder,
            devices=session.devices,
            model=session.model,
            step=lambda: session.step,
            plan=session.plan,
            store=session.store,
            train=session.data.train,
            keepers=lambda start: _keepers(session, start),
            batches=lambda start: _batches(session, start),
            validate=validate,
            due=lambda step: session.validates or train.score_train,
            best=_best(session),
        ),
        start,
        stop,
    )


def _best(session: ClassifierSession) -> cb.BestCheckpoint | None:
    if not (session.validates and session.devices.is_chief):
        return None
    monitor, mode = _monitor(session)
    return cb.BestCheckpoint(session.folder.path, monitor, mode, "validation/loss")


def _monitor(session: ClassifierSession) -> tuple[str, Literal["min", "max"]]:
    monitor = session.config.train.monitor
    return f"validation/{monitor}", "min" if monitor == "loss" else "max"


def _restore(session: ClassifierSession) -> int:
    folder, goes_on = session.folder, bool(session.store.steps())
    if not goes_on or not folder.blocks():
        session.recipe.start(session.model)
        if session.recipe.new_head:
            start_head(session)
        hashes = part_hashes(session)
        if session.devices.is_chief:
            if goes_on:
                log.warning("blocks.json is made anew from the network that the run began with")
            folder.write_blocks(hashes)
    step = session.store.restore_latest()
    if step is None:
        _say_plan(session)
        return 0
    log.info("going on from ckpt-%d in %s", step, folder.path)
    return step


def _say_plan(session: ClassifierSession) -> None:
    images, plan = session.data.train.num_examples, session.plan
    batch = session.config.train.train_batch_size
    for message in health.warnings_before_start(images, batch, plan.total_steps, "finetune"):
        log.warning("%s", message)
    if not session.validates:
        log.warning("there is no labelled validation split: the last epoch's weights are taken")
    weights = sum(int(tf.size(v)) for v in session.model.trainable_variables)
    log.info(
        "training %s weights on %d images of %d classes, batch %d, %d steps, %d an epoch",
        f"{weights:,}",
        images,
        len(session.data.class_names),
        batch,
        plan.total_steps,
        plan.checkpoint_steps,
    )


def _keepers(session: ClassifierSession, start: int) -> Monitors:
    """The per-step log, and the callbacks that watch every epoch and judge validations."""
    train, folder = session.config.train, session.folder
    watchers: list[keras.callbacks.Callback] = []
    judges: list[keras.callbacks.Callback] = []
    step_log = None
    if session.devices.is_chief:
        step_log = cb.StepLog(folder.metrics_file, start)
        board = cb.TensorBoard(folder.path)
        board.image("views", tiled(write_views(session)), start)
        watchers = [cb.Progress(session.plan.total_steps, train.train_batch_size, start), board]
        judges.append(cb.ValidationLog(folder.validation_file, start, ("train", "validation")))
    if session.validates and session.recipe.pretrained:
        labels = session.data.sources[VALIDATION].labels()
        frozen = not session.model.backbone.trainable_variables
        judges.append(SpoiltFeatures(labels, session.plan.total_steps, frozen))
    if train.early_stopping_patience:
        monitor, mode = _monitor(session)
        judges.append(
            keras.callbacks.EarlyStopping(
                monitor, patience=train.early_stopping_patience, mode=mode
            )
        )
    return Monitors(step_log, watchers, judges)


def _batches(session: ClassifierSession, start: int) -> Batches:
    source, seed = session.data.train, session.config.machine.seed
    batch_size = session.config.train.train_batch_size
    if isinstance(session.scorer, FeatureScorer):
        known = session.scorer.features(session.data.train_split)
        return feature_batches(known, session.devices, batch_size, seed, start, source.sampler)
    return training_batches(
        source, session.steps.training_example(), session.devices, batch_size, seed, start
    )


def _say(scores: dict[str, float], step: int, session: ClassifierSession) -> None:
    epoch = -(-step // session.plan.checkpoint_steps)
    shown = ("train/loss", "train/accuracy", "validation/loss", "validation/accuracy",
             f"validation/{session.config.train.monitor}")  # fmt: skip
    text = ", ".join(f"{name} {scores[name]:.3f}" for name in dict.fromkeys(shown)
                     if name in scores)  # fmt: skip
    log.info("epoch %d: %s", epoch, text or "nothing to score")
