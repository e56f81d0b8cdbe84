"""The loop: steps, callbacks, checkpoints, and a clean way to stop."""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import keras
import numpy as np

from simclr_tf.checkpoints.store import CheckpointStore
from simclr_tf.training.callbacks import StepLog
from simclr_tf.training.distribution import Devices
from simclr_tf.training.health import DivergedError, check_metrics, check_scores, diverged
from simclr_tf.training.step import TrainStep

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopPlan:
    """How far to go and how often to look up.

    Attributes:
        total_steps: Where the run ends.
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
        """Whether a checkpoint is due after this step."""
        return step % self.checkpoint_steps == 0 or step >= self.total_steps


class StopRequest:
    """Set by Ctrl-C or SIGTERM; the loop looks at it between steps."""

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
        step: What a step is.
        plan: How far and how often.
        store: Where checkpoints go.
        devices: What the run is on.
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
        """Of the interval that ends at a step, from 0."""
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
            if self._devices.any_worker(bool(stop.signal)):
                stop.signal = stop.signal or signal.SIGTERM
            if stop.signal or self._plan.is_checkpoint(step):
                self._save(step)
            if self._plan.is_checkpoint(step):
                self._end_interval(step)
            self._store.prune()
            if stop.signal:
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
