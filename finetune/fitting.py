"""Training over epochs with a validation after each, whatever is trained: the loop and its keepers.

A run goes on from its newest checkpoint; a validation that a kill has lost is made up for; early
stopping and the best checkpoint remember the validations before.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import keras

from data_prep.source import Source
from simclr_tf.checkpoints.locate import locate
from simclr_tf.checkpoints.store import CheckpointStore
from simclr_tf.distribution import Devices
from simclr_tf.run_dir import RunDir
from simclr_tf.training import callbacks as cb
from simclr_tf.training.inputs import Batches
from simclr_tf.training.loop import Loop, LoopPlan, StopRequest, Validate
from simclr_tf.training.step import TrainStep
from simclr_tf.training.train import naming_unreadable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keepers:
    """What accompanies a training.

    Attributes:
        step_log: The per-step CSV; None on workers that write nothing.
        watchers: Called after every loop of steps and every epoch.
        judges: Called after every validation.
    """

    step_log: cb.StepLog | None
    watchers: list[keras.callbacks.Callback]
    judges: list[keras.callbacks.Callback]


@dataclass(frozen=True)
class Fitting:
    """A training that is ready to begin or to go on.

    Attributes:
        folder: Where the run is kept.
        devices: What it runs on.
        model: What early stopping speaks to.
        step: A training step.
        plan: How far to train; an interval is an epoch.
        store: The run's checkpoints.
        train: The training images, which errors of decoding are told of.
        keepers: Makes what accompanies the training from a step on.
        batches: Training batches from a step on.
        validate: Scores the network at a step.
        say: Tells of the scores at a step.
    """

    folder: RunDir
    devices: Devices
    model: keras.Model
    step: TrainStep
    plan: LoopPlan
    store: CheckpointStore
    train: Source
    keepers: Callable[[int], Keepers]
    batches: Callable[[int], Batches]
    validate: Validate
    say: Callable[[dict[str, float], int], None]


def fit(fitting: Fitting, start: int, stop: StopRequest) -> int:
    """Trains from a step to the end or until asked to stop.

    Args:
        fitting: The training; its network stands at `start`.
        start: Steps already taken.
        stop: The request to stop.

    Returns:
        The step reached; its checkpoint is on disk.

    Raises:
        DivergedError: A number became NaN or infinite; the last checkpoint is kept.
    """
    folder, plan, model = fitting.folder, fitting.plan, fitting.model
    missed = _missed(fitting, start)
    if start >= (folder.early_stop() or plan.total_steps) and not missed:
        log.info("training was complete at step %d", start)
        return start
    with naming_unreadable(fitting.train):
        keepers = fitting.keepers(start)
    watching = keras.callbacks.CallbackList(keepers.watchers, model=model)
    judging = keras.callbacks.CallbackList(keepers.judges, model=model)
    model.stop_training = False
    judging.on_train_begin()
    cb.replay(folder.validation_file, start, keepers.judges)
    if missed:
        # Killed between a checkpoint and its validation.
        epoch = -(-start // plan.checkpoint_steps) - 1
        judging.on_epoch_end(epoch, {"step": start, **fitting.validate(start)})

    def validate(step: int) -> dict[str, float]:
        scores = fitting.validate(step)
        fitting.say(scores, step)
        return scores

    loop = Loop(
        fitting.step,
        plan,
        fitting.store,
        fitting.devices,
        keepers.step_log,
        watching,
        judging,
        validate,
    )
    watching.on_train_begin()
    with naming_unreadable(fitting.train):
        reached = loop.run(iter(fitting.batches(start)), start, stop)
    watching.on_train_end()
    if model.stop_training and reached < plan.total_steps and fitting.devices.is_chief:
        folder.write_early_stop(reached)
    if model.stop_training:
        log.info("stopped early at step %d: no better validation since", reached)
    return reached


def _missed(fitting: Fitting, step: int) -> bool:
    """Whether the newest checkpoint ended an epoch of which nothing was logged."""
    if not step or not fitting.plan.is_checkpoint(step):
        return False
    file = fitting.folder.validation_file
    logged = cb.read_metrics(file).get("step", ()) if file.exists() else ()
    return step not in logged


class Validated(Protocol):
    """What `take_best` needs of a run that was trained."""

    @property
    def validates(self) -> bool:
        """Whether there was something to choose the best epoch by."""
        ...

    @property
    def best(self) -> Path:
        """Folder of the checkpoint that validated best."""
        ...

    @property
    def store(self) -> CheckpointStore:
        """The run's checkpoints."""
        ...

    @property
    def plan(self) -> LoopPlan:
        """How far it was trained."""
        ...

    def last_step(self) -> int:
        """Where training ended."""
        ...


def take_best(run: Validated) -> int:
    """Restores the checkpoint that validated best; the last one without a validation."""
    if not run.validates:
        return run.last_step()
    step = int(locate(str(run.best)).path.rpartition("-")[2])
    run.store.restore(step, run.best)
    epoch = -(-step // run.plan.checkpoint_steps)
    log.info("the weights of epoch %d (step %d) validated best", epoch, step)
    return step
