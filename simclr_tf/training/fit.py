"""Training with a validation after some checkpoints, whatever is trained: the loop and its keepers.

A run goes on from its newest checkpoint. Validations that a kill or a damaged file has lost are
made up for as far as their checkpoints are there; early stopping and the best checkpoint then know
all that were made before.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from data_prep.sources.source import Source
from simclr_tf.checkpoints.store import CheckpointStore, checkpoint_steps
from simclr_tf.models.fingerprint import variables_hash
from simclr_tf.training import callbacks as cb
from simclr_tf.training.batches import Batches
from simclr_tf.training.data_service import out_of_turn
from simclr_tf.training.distribution import Devices
from simclr_tf.training.health import DivergedError, check_scores, diverged
from simclr_tf.training.loop import Loop, LoopPlan, StopRequest, Validate
from simclr_tf.training.run_dir import RunDir
from simclr_tf.training.step import TrainStep
from simclr_tf.training.workers import check_start

log = logging.getLogger(__name__)

Validation = dict[str, Any]
"""The scores of a validation by name, and its `step`."""


@dataclass(frozen=True)
class Keepers:
    """What accompanies a training.

    Attributes:
        step_log: The per-step CSV; None on workers that write nothing.
        watchers: Called after every loop of steps and every interval.
        judges: Called after every validation, once the best checkpoint has been copied.
    """

    step_log: cb.StepLog | None = None
    watchers: list[keras.callbacks.Callback] = field(default_factory=list)
    judges: list[keras.callbacks.Callback] = field(default_factory=list)


@dataclass(frozen=True)
class Fitting:
    """A training that is ready to begin or to go on.

    Attributes:
        folder: Where the run is kept.
        devices: What it runs on.
        model: What early stopping speaks to.
        step: Makes the training step.
        plan: How far to train and how often to look up.
        store: The run's checkpoints.
        train: The training images, which errors of decoding are told of.
        keepers: Makes what accompanies the training from a step on.
        batches: Training batches from a step on.
        validate: Scores the network at a step.
        due: Whether `validate` gives scores at the step of a checkpoint.
        best: Keeps the checkpoint that validates best; None where nothing tells, and on workers
            that write nothing.
    """

    folder: RunDir
    devices: Devices
    model: keras.Model
    step: Callable[[], TrainStep]
    plan: LoopPlan
    store: CheckpointStore
    train: Source
    keepers: Callable[[int], Keepers]
    batches: Callable[[int], Batches]
    validate: Validate
    due: Callable[[int], bool]
    best: cb.BestCheckpoint | None


def fit(fitting: Fitting, start: int, stop: StopRequest) -> int:
    """Trains from a step to the end or until asked to stop.

    Args:
        fitting: The training; its network stands at `start`.
        start: Steps already taken.
        stop: The request to stop.

    Returns:
        The step reached; its checkpoint is on disk.

    Raises:
        DivergedError: A number became NaN or infinite; the last sound checkpoint is kept.
    """
    folder, plan, model = fitting.folder, fitting.plan, fitting.model
    if fitting.devices.num_workers > 1:
        check_start(fitting.devices, start, variables_hash(model.variables))
    validations = _validations(fitting, start)
    known = [validations.known[step] for step in sorted(validations.known)]
    early, seen = folder.early_stop(), _is_seen(fitting, start, validations)
    if start >= (early or plan.total_steps) and seen and not validations.made:
        log.info("training was complete at step %d%s", start, " (stopped early)" if early else "")
        if fitting.best:
            fitting.best.settle(known)
        if fitting.devices.is_chief:
            cb.mend_step_log(folder.metrics_file, start)
        fitting.store.prune()
        fitting.store.mend_note()
        return start
    with naming_unreadable(fitting.train):
        keepers = fitting.keepers(start)
    if fitting.devices.is_chief:
        folder.forget_early_stop()  # if it was damaged, or what it came from
    if keepers.step_log and start:
        keepers.step_log.say_lost(start)
    # First the best: where a validation is logged its checkpoint has been copied.
    judges = [*([fitting.best] if fitting.best else []), *keepers.judges]
    watching = keras.callbacks.CallbackList(keepers.watchers, model=model)
    judging = keras.callbacks.CallbackList(judges, model=model)
    model.stop_training = False
    judging.on_train_begin()
    cb.replay(known, judges, validations.interrupted)
    for judge in judges:
        if validations.made and isinstance(judge, cb.ValidationLog):
            judge.replace_all(known)
    loop = Loop(
        fitting.step(),
        plan,
        fitting.store,
        fitting.devices,
        keepers.step_log,
        watching,
        judging,
        fitting.validate,
    )
    watching.on_train_begin()
    if start:
        loop.take_up(start, seen, validations.known.get(start, {}))
    with naming_unreadable(fitting.train):
        reached = loop.run(iter(fitting.batches(start)), start, stop)
    watching.on_train_end()
    fitting.store.prune()
    if model.stop_training and reached < plan.total_steps:
        log.info("stopped early at step %d: no better validation since", reached)
        if fitting.devices.is_chief:
            folder.write_early_stop(reached)
    return reached


@contextmanager
def naming_unreadable(source: Source) -> Iterator[None]:
    """Turns a failure to decode into an error that names the image."""
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        raise out_of_turn(error) or source.diagnose() or error from None


@dataclass(frozen=True)
class _Validations:
    """The validations of a run that goes on.

    Attributes:
        known: All of them, by step.
        made: Steps of those that had to be made again.
        interrupted: Steps of those that a kill alone has interrupted; nothing was damaged.
    """

    known: dict[int, Validation] = field(default_factory=dict)
    made: frozenset[int] = frozenset()
    interrupted: frozenset[int] = frozenset()


def _is_seen(fitting: Fitting, start: int, validations: _Validations) -> bool:
    """Whether the callbacks were told of the interval that ends where a run goes on.

    They are told before the validation is logged. Where none is due only the end of the run tells.
    """
    if not start or not fitting.plan.is_checkpoint(start):
        return True
    if fitting.due(start):
        return start not in validations.made
    return fitting.folder.is_sealed()


def _validations(fitting: Fitting, start: int) -> _Validations:
    """Reads the validations of a run that goes on, and makes up for those that are lost.

    All workers find the same, for nothing in the folder changes before they validate together.
    """
    if not start:
        return _Validations()
    file, plan = fitting.folder.validation_file, fitting.plan
    due = [s for s in range(1, start + 1) if plan.is_checkpoint(s) and fitting.due(s)]
    fault = fitting.folder.checksums.fault(file.name)
    columns, rows = cb.read_rows(file, start) if file.exists() else ([], [])
    known = {int(row[0]): _as_logs(columns, row) for row in rows}
    places = dict.fromkeys(checkpoint_steps(fitting.folder.best), fitting.folder.best)
    places |= dict.fromkeys(fitting.store.steps(), fitting.folder.path)
    suspected = due if fault else [step for step in due if step not in known]
    again = {step: places[step] for step in suspected if step in places}
    made: dict[int, Validation] = {}
    # First that of the network as it stands.
    for step, place in sorted(again.items(), key=lambda item: item[0] != start):
        if step == start or fitting.store.restores(step, place):
            log.info("the validation of ckpt-%d is made up for", step)
            made[step] = {"step": step, **_validated(fitting, step, start)}
    if set(again) - {start}:
        fitting.store.restore(start)
    if made and not any(len(scores) > 1 for scores in made.values()):
        return _Validations()  # there are no labels to score by
    if made and set(columns) - {"step"} - set(next(iter(made.values()))):
        known = {}  # the header is damaged: nothing tells what the numbers are
    lost = [step for step in suspected if step not in made]
    if fault or lost:
        _say_lost(f"{file} {fault or 'is not whole'}", made, lost, known)
    interrupted = frozenset({start} & set(made) if len(made) == 1 and not (fault or lost) else ())
    return _Validations(known | made, frozenset(made), interrupted)


def _validated(fitting: Fitting, step: int, start: int) -> dict[str, float]:
    """The scores of the network at a step; the newest checkpoint is discarded if it has none."""
    try:
        scores = fitting.validate(step)
        check_scores(scores)
    except DivergedError as error:
        if step == start:
            fitting.store.discard(step)
        left = [known for known in fitting.store.steps() if known != step]
        raise diverged(f"{error} after step {step}", f"ckpt-{left[-1]}" if left else "") from None
    return scores


def _as_logs(columns: list[str], row: list[str]) -> Validation:
    logs: Validation = {n: float(cell or "nan") for n, cell in zip(columns, row, strict=True)}
    return {**logs, "step": int(row[0])}


def _say_lost(
    what: str, made: dict[int, Validation], lost: list[int], known: dict[int, Validation]
) -> None:
    parts = [f"{len(made)} validations were made again from their checkpoints"]
    if gone := [step for step in lost if step not in known]:
        parts.append(f"those of steps {_listed(gone)} are lost with their checkpoints")
    if kept := [step for step in lost if step in known]:
        parts.append(f"those of steps {_listed(kept)} stand as they are, for nothing checks them")
    log.warning("%s: %s", what, "; ".join(parts))


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps[:8])) + (" ..." if len(steps) > 8 else "")
