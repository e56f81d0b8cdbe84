"""Training with a validation after some checkpoints, whatever is trained: loop and monitors.

A run goes on from its newest checkpoint. Validations that a kill or a damaged file has lost are
made up for as far as their checkpoints are there; early stopping and the best checkpoint then know
all that were made before.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data_prep.sources.source import Source
from simclr_tf.checkpoints.store import CheckpointStore, checkpoint_steps
from simclr_tf.models.weights import variables_hash
from simclr_tf.training import callbacks as cb
from simclr_tf.training.batches import Batches
from simclr_tf.training.callbacks import StepLog
from simclr_tf.training.data_service import out_of_turn
from simclr_tf.training.distribution import Devices
from simclr_tf.training.health import DivergedError, check_metrics, check_scores, diverged
from simclr_tf.training.run_dir import RunDir
from simclr_tf.training.step import TrainStep
from simclr_tf.training.workers import check_start

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopPlan:
    """Steps of a whole run, between checkpoints and between looks at the host.

    Attributes:
        total_steps: Steps of the whole run.
        checkpoint_steps: Steps between checkpoints.
        steps_per_loop: Steps between two looks at the host.
    """

    total_steps: int
    checkpoint_steps: int
    steps_per_loop: int

    def next_loop(self, step: int) -> int:
        """Steps of the next loop: never past a checkpoint or the end."""
        to_checkpoint = self.checkpoint_steps - step % self.checkpoint_steps
        return min(self.steps_per_loop, to_checkpoint, self.total_steps - step)

    def is_checkpoint(self, step: int) -> bool:
        """True if a checkpoint is due after this step."""
        return step % self.checkpoint_steps == 0 or step >= self.total_steps


class StopRequest:
    """A request to stop, set by Ctrl-C or SIGTERM; the loop looks at it between steps."""

    def __init__(self) -> None:
        self.signal = 0

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Turns the two signals into a request; a second one interrupts at once."""
        watched = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in watched}

        def ask(number: int, _frame: FrameType | None) -> None:
            self.signal = number
            log.info("stopping after this step; the state will be saved")
            for again in watched:
                signal.signal(again, before[again])

        for number in watched:
            signal.signal(number, ask)
        try:
            yield self
        finally:
            for number in watched:
                signal.signal(number, before[number])


Validate = Callable[[int], dict[str, float]]


class Loop:
    """Drives the steps of a run.

    Args:
        step: Takes the steps.
        plan: Number of steps, and of those between checkpoints.
        store: Keeps the checkpoints.
        devices: The devices of the run.
        step_log: The per-step CSV; None on workers that write nothing.
        callbacks: Called at the end of every loop ("batch") and interval ("epoch").
        after_validation: Called at the end of intervals that were validated.
        validate: Scores the network at a step, or gives an empty dictionary if none is due.
    """

    def __init__(
        self,
        step: TrainStep,
        plan: LoopPlan,
        store: CheckpointStore,
        devices: Devices,
        step_log: StepLog | None,
        callbacks: keras.callbacks.CallbackList,
        after_validation: keras.callbacks.CallbackList,
        validate: Validate,
    ) -> None:
        self._step, self._plan, self._store, self._devices = step, plan, store, devices
        self._step_log, self._callbacks, self._validate = step_log, callbacks, validate
        self._after_validation = after_validation
        self._interval: list[dict[str, np.ndarray]] = []

    def take_up(self, step: int, seen: bool, scores: dict[str, Any]) -> None:
        """Takes up the interval in which an earlier process has ended.

        Args:
            step: Steps already taken.
            seen: Whether the callbacks were told of the interval that ends there, if one does;
                they are told now if not.
            scores: Of the network at this step, if any.
        """
        first = max(step - 1, 0) // self._plan.checkpoint_steps * self._plan.checkpoint_steps + 1
        rows = self._step_log.values(first, step) if self._step_log else {}
        if not self._plan.is_checkpoint(step):
            self._interval = [rows] if rows else []
        elif not seen:
            logs = {"step": step, **(_means([rows]) if rows else {}), **scores}
            self._callbacks.on_epoch_end(self._interval_number(step), logs)

    def _interval_number(self, step: int) -> int:
        """Number of the interval that ends at a step, from 0."""
        return -(-step // self._plan.checkpoint_steps) - 1

    def run(self, iterator: Any, start_step: int, stop: StopRequest) -> int:
        """Trains from a step to the end, or until asked to stop.

        Args:
            iterator: Over training batches from `start_step` on.
            start_step: Steps already taken.
            stop: The request to stop.

        Returns:
            The step reached; a checkpoint of it is on disk.

        Raises:
            DivergedError: A metric or a weight is no longer a number; the last sound checkpoint is
                kept.
        """
        step, loops = start_step, 0
        beginning: dict[str, float] = {}
        while step < self._plan.total_steps and not self._told_to_stop():
            began = time.perf_counter()
            count = self._plan.next_loop(step)
            metrics = self._step.run(iterator, count)
            if not beginning:
                beginning = {name: float(values[0]) for name, values in metrics.items()}
            check_metrics(metrics, step + 1, self._last_checkpoint(), beginning)
            metrics["seconds"] = np.full(count, (time.perf_counter() - began) / count)
            if self._step_log:
                self._step_log.write(step + 1, metrics)
            self._interval.append(metrics)
            step += count
            self._callbacks.on_train_batch_end(loops, {"step": step, **_means([metrics])})
            loops += 1
            # Looked at once: a signal that comes while this step is dealt with ends the next one,
            # or it would end this one without a checkpoint.
            stopping = self._devices.any_worker(bool(stop.signal))
            if stopping:
                stop.signal = stop.signal or signal.SIGTERM
            if stopping or self._plan.is_checkpoint(step):
                self._save(step)
            if self._plan.is_checkpoint(step):
                self._end_interval(step)
            self._store.prune()
            if stopping:
                break
        return step

    def _last_checkpoint(self) -> str:
        steps = self._store.steps()
        return f"ckpt-{steps[-1]}" if steps else ""

    def _save(self, step: int) -> None:
        if self._step_log:
            self._step_log.seal()
        if broken := self._store.not_finite():
            raise diverged(f"{broken} is not finite after step {step}", self._last_checkpoint())
        self._store.write(step)

    def _end_interval(self, step: int) -> None:
        try:
            self._look_up(step)
        except DivergedError as error:
            # Its weights are numbers, but too large to compute with.
            self._store.discard(step)
            raise diverged(f"{error} after step {step}", self._last_checkpoint()) from None

    def _look_up(self, step: int) -> None:
        logs = {"step": step, **_means(self._interval)}
        self._interval = []
        scores = self._validate(step)
        check_scores(scores)
        logs.update(scores)
        interval = self._interval_number(step)
        self._callbacks.on_epoch_end(interval, logs)
        if scores:
            self._after_validation.on_epoch_end(interval, logs)

    def _told_to_stop(self) -> bool:
        model = self._after_validation.model
        return bool(model is not None and model.stop_training)


def _means(parts: list[dict[str, np.ndarray]]) -> dict[str, float]:
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: float(np.mean(np.concatenate([p[name] for p in parts]))) for name in names}


Validation = dict[str, Any]
"""The scores of a validation by name, and its `step`."""


@dataclass(frozen=True)
class Monitors:
    """Log and callbacks that accompany a training.

    Attributes:
        step_log: The per-step CSV; None on workers that write nothing.
        watchers: Called after every loop of steps and every interval.
        judges: Called after every validation, once the best checkpoint has been copied.
    """

    step_log: cb.StepLog | None = None
    watchers: list[keras.callbacks.Callback] = field(default_factory=list)
    judges: list[keras.callbacks.Callback] = field(default_factory=list)


@dataclass(frozen=True)
class FitJob:
    """A training that is ready to begin or to go on.

    Attributes:
        folder: The folder of the run.
        devices: The devices that it runs on.
        model: What early stopping speaks to.
        step: Makes the training step.
        plan: Steps to train, between checkpoints and between looks at the host.
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
    keepers: Callable[[int], Monitors]
    batches: Callable[[int], Batches]
    validate: Validate
    due: Callable[[int], bool]
    best: cb.BestCheckpoint | None


def fit(fitting: FitJob, start: int, stop: StopRequest) -> int:
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


def _is_seen(fitting: FitJob, start: int, validations: _Validations) -> bool:
    """True if the callbacks were told of the interval that ends where a run goes on.

    They are told before its validation is logged, so a logged one proves it. Where no validation is
    due, only a finished run does.
    """
    if not start or not fitting.plan.is_checkpoint(start):
        return True
    if fitting.due(start):
        return start not in validations.made
    return fitting.folder.is_sealed()


def _validations(fitting: FitJob, start: int) -> _Validations:
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


def _validated(fitting: FitJob, step: int, start: int) -> dict[str, float]:
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
