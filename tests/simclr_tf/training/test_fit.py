"""Runs that are killed between any two of their writes, or whose files are damaged."""

import itertools
import logging
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.checkpoints.read import read_tensors
from simclr_tf.checkpoints.store import CheckpointStore, checkpoint_steps
from simclr_tf.config.sections import MachineSettings
from simclr_tf.training import callbacks as cb
from simclr_tf.training.distribution import connect
from simclr_tf.training.fit import FitJob, LoopPlan, Monitors, StopRequest, fit
from simclr_tf.training.health import DivergedError, check_outputs
from simclr_tf.training.run_dir import RunDir
from tests.damaging import CHANGES, Damage, do_damage, emptied, flipped, zeroed
from tests.killing import WRITES, Killed

# What validation gives after every second step; the best is neither the first nor the last.
SCORES = {2: 0.2, 4: 0.7, 6: 0.7, 8: 0.9, 10: 0.3, 12: 0.6}
PLAN = LoopPlan(total_steps=12, checkpoint_steps=2, steps_per_loop=1)


class Training:
    """A run whose network is one number: the steps taken."""

    def __init__(self, folder: Path, patience: int = 0, keep: int = 2) -> None:
        self.folder, self._patience = RunDir(folder), patience
        folder.mkdir(parents=True, exist_ok=True)
        self.model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
        self.weight = self.model.variables[0]
        optimizer = keras.optimizers.SGD()
        optimizer.build(self.model.trainable_variables)
        keys = {"weight": self.weight.value}
        self.store = CheckpointStore(folder, self.model, optimizer, keep, keys=keys)
        self.validated: list[int] = []

    def run(self, _iterator: Any, steps: int) -> dict[str, np.ndarray]:
        """The training step."""
        self.weight.assign_add([[float(steps)]])
        return {"total_loss": np.array([1 / float(self.weight.value[0, 0])] * steps)}

    def validate(self, step: int) -> dict[str, float]:
        assert float(self.weight.value[0, 0]) == step, "the network is that of the checkpoint"
        self.validated.append(step)
        return {"validation/accuracy": SCORES[step], "validation/loss": 1 / 3 / step}

    def keepers(self, start: int) -> Monitors:
        judges: list[keras.callbacks.Callback] = [
            cb.ValidationLog(self.folder.validation_file, start)
        ]
        if self._patience:
            stopping = keras.callbacks.EarlyStopping
            judges.append(stopping("validation/accuracy", patience=self._patience, mode="max"))
        return Monitors(
            cb.StepLog(self.folder.metrics_file, start), [Told(self.folder.path)], judges
        )

    def go(self, stop: StopRequest | None = None, **changes: Any) -> int:
        start = self.store.restore_latest() or 0
        if not start:
            self.weight.assign([[0.0]])
        values: dict[str, Any] = {
            "folder": self.folder,
            "devices": connect(MachineSettings(distribute="one_device")),
            "model": self.model,
            "step": lambda: self,
            "plan": PLAN,
            "store": self.store,
            "train": None,
            "keepers": self.keepers,
            "batches": lambda start: itertools.repeat({}),
            "validate": self.validate,
            "due": lambda step: True,
            "best": cb.BestCheckpoint(self.folder.path, "validation/accuracy", "max"),
        }
        return fit(FitJob(**{**values, **changes}), start, stop or StopRequest())


class Told(keras.callbacks.Callback):
    """Writes down what a watcher is told at the end of every interval."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / "told.txt"

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        score = logs["validation/accuracy"]
        with self._file.open("a") as file:
            file.write(f"{epoch} {logs['step']} {logs['total_loss']:.6g} {score}\n")


def left(folder: Path) -> dict[str, Any]:
    """All that must not depend on interruptions."""
    best = checkpoint_steps(folder / "best")
    table = cb.read_metrics(folder / "metrics.csv")
    return {
        "metrics": [table["step"].tolist(), table["total_loss"].tolist()],
        "validation": (folder / "validation.csv").read_bytes(),
        "best": best,
        "best weights": [float(read_tensors(str(folder / "best" / f"ckpt-{s}"))["weight"][0, 0])
                         for s in best],
        "best files": sorted(p.name for p in (folder / "best").iterdir()),
        "checkpoints": checkpoint_steps(folder),
        "data": sorted(p.name for p in folder.glob("ckpt-*.data*")),
        "told": sorted(set((folder / "told.txt").read_text().splitlines())),
        "sums": sorted(RunDir(folder).checksums.names()),
        "unsound": [n for n in RunDir(folder).checksums.names()
                    if RunDir(folder).checksums.fault(n)],
        "early": RunDir(folder).early_stop(),
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert Training(folder).go() == 12
    return folder


def test_a_run_that_nothing_disturbs(whole: Path) -> None:
    found = left(whole)
    assert found["best"] == [8]
    assert found["best weights"] == [8.0]
    assert found["checkpoints"] == [10, 12]
    table = cb.read_metrics(whole / "validation.csv")
    assert list(table["validation/accuracy"]) == list(SCORES.values())
    assert list(cb.read_metrics(whole / "metrics.csv")["step"]) == list(range(1, 13))


@pytest.mark.parametrize("patience", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_killed_between_any_two_writes_leaves_what_an_undisturbed_one_leaves(
    tmp_path: Path, patience: int
) -> None:
    with WRITES.below(tmp_path / "whole"):
        reached = Training(tmp_path / "whole", patience).go()
    writes = list(WRITES.seen)
    wanted = left(tmp_path / "whole")
    assert reached == 12
    places = {path.split("/")[0].lstrip(".").split(".")[0] for _, path in writes}
    assert places >= {"partial", "checkpoint", "metrics", "validation", "best", "checksums"}
    assert len(writes) > 100
    training = Training(tmp_path / "once", patience)
    for number in range(1, len(writes) + 1):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        training = Training(folder, patience)
        with WRITES.below(folder, last=number), suppress(Killed):
            training.go()
        assert Training(folder, patience).go() == reached
        assert left(folder) == wanted, f"killed before write {number}: {writes[number - 1]}"


class AnyMoment(StopRequest):
    """A request that comes just before the n-th look at it."""

    def __init__(self, look: int) -> None:
        self._left = look

    @property
    def signal(self) -> int:
        self._left -= 1
        return signal.SIGTERM if self._left <= 0 else 0

    @signal.setter
    def signal(self, number: int) -> None:
        pass


@pytest.mark.parametrize("look", range(1, 8))
def test_a_run_stopped_at_any_moment_has_a_checkpoint_of_its_last_step(
    tmp_path: Path, look: int
) -> None:
    training = Training(tmp_path / "run")
    step = training.go(AnyMoment(look))
    assert step < PLAN.total_steps
    assert checkpoint_steps(tmp_path / "run")[-1] == step


def test_early_stopping_survives_a_kill(tmp_path: Path) -> None:
    """It waits for two validations that are no better than 0.7, of step 4."""
    scores = {**SCORES, 8: 0.1}

    def validate(training: Training) -> Callable[[int], dict[str, float]]:
        return lambda step: {"validation/accuracy": scores[step], "validation/loss": 1.0}

    one = Training(tmp_path / "whole", 2)
    assert one.go(validate=validate(one)) == 8
    for number in (140, 150, 160, 165, 170):
        folder = tmp_path / f"killed_{number}"
        first, again = Training(folder, 2), Training(folder, 2)
        with WRITES.below(folder, last=number), suppress(Killed):
            first.go(validate=validate(first))
        assert again.go(validate=validate(again)) == 8
        assert left(folder) == left(tmp_path / "whole")
        assert again.folder.early_stop() == 8


def damaged(whole: Path, folder: Path, name: str, damage: Damage) -> None:
    shutil.copytree(whole, folder)
    do_damage(folder / name, damage)


@pytest.mark.parametrize("damage", CHANGES)
def test_a_damaged_validation_log_is_named_and_made_again_from_checkpoints(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Damage
) -> None:
    folder = tmp_path / "run"
    damaged(whole, folder, "validation.csv", damage)
    training = Training(folder)
    with caplog.at_level(logging.INFO):
        assert training.go() == 12
    assert sum(f"{folder / 'validation.csv'}" in r.getMessage() for r in caplog.records) == 1
    # The best and the two newest are still there; so they are what they were.
    assert set(training.validated) == {8, 10, 12}
    rows = cb.read_metrics(folder / "validation.csv")
    for step, score in zip(rows["step"], rows["validation/accuracy"], strict=True):
        assert score == SCORES[int(step)] or int(step) not in (8, 10, 12)
    assert left(folder)["best"] == [8]
    assert left(folder)["best weights"] == [8.0]
    assert not RunDir(folder).checksums.fault("validation.csv")


@pytest.mark.parametrize("damage", CHANGES)
def test_a_damaged_step_log_is_named_and_kept_aside(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Damage
) -> None:
    folder = tmp_path / "run"
    damaged(whole, folder, "metrics.csv", damage)
    for step in (12,):
        for file in folder.glob(f"ckpt-{step}.*"):
            file.unlink()
    with caplog.at_level(logging.INFO):
        assert Training(folder).go() == 12
    said = [r.getMessage() for r in caplog.records if "metrics.csv" in r.getMessage()]
    assert len(said) == 1
    assert "rows can be read" in said[0]
    steps = cb.read_metrics(folder / "metrics.csv")["step"]
    assert list(steps[-2:]) == [11, 12]
    assert (folder / "metrics.csv.damaged").exists() or damage is emptied
    assert left(folder)["best"] == [8]


def test_a_best_that_is_gone_or_damaged_is_copied_again_or_said(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("gone", "damaged", "still there"):
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        if name == "still there":
            for file in (folder / "best").glob("ckpt-8.*"):
                shutil.copy(file, folder / file.name)
        if name == "damaged":
            data = folder / "best" / "ckpt-8.data-00000-of-00001"
            data.write_bytes(zeroed(data.read_bytes()))
        else:
            shutil.rmtree(folder / "best")
        caplog.clear()
        assert Training(folder).go() == 12
        if name == "still there":
            assert "ckpt-8 is copied there again" in caplog.text
            assert left(folder)["best"] == [8]
        else:
            assert "ckpt-8, which validated best, is gone or damaged" in caplog.text
            assert "the best that is left is ckpt-12" in caplog.text
            assert left(folder)["best"] == [12]


@pytest.mark.parametrize("damage", CHANGES)
@pytest.mark.parametrize("name", ["checkpoint", "ckpt-12.index", "ckpt-12.data-00000-of-00001"])
def test_damaged_checkpoint_files_cost_nothing_but_time(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str,
    damage: Damage,
) -> None:  # fmt: skip
    folder = tmp_path / "run"
    change = damage
    if name != "checkpoint" and damage is flipped:
        change = lambda content: content[:8] + bytes([content[8] ^ 1]) + content[9:]  # noqa: E731
    damaged(whole, folder, name, change)
    assert Training(folder).go() == 12
    if name != "checkpoint":
        assert "ckpt-12 is missing or damaged" in caplog.text
    for kept in ("metrics", "validation", "best", "checkpoints"):
        assert left(folder)[kept] == left(whole)[kept], kept


@pytest.mark.parametrize("what", ["weights", "outputs", "scores", "scores after a kill"])
def test_a_run_that_diverges_keeps_the_last_sound_checkpoint(tmp_path: Path, what: str) -> None:
    training = Training(tmp_path / "run", keep=1)
    step = training.run

    def broken(iterator: Any, steps: int) -> dict[str, np.ndarray]:
        metrics = step(iterator, steps)
        if what == "weights" and float(training.weight.value[0, 0]) == 6:
            training.weight.assign([[np.inf]])
        return metrics

    def validate(number: int) -> dict[str, float]:
        if number == 6 and what == "outputs":
            check_outputs("features", np.array([[1.0], [np.nan]]))
        broken = number == 6 and what.startswith("scores")
        return {"validation/accuracy": SCORES[number], "validation/loss": np.nan if broken else 1.0}

    def die(number: int) -> dict[str, float]:
        if number == 6:
            raise Killed
        return validate(number)

    training.run = broken  # type: ignore[method-assign]
    if "kill" in what:
        with pytest.raises(Killed):
            training.go(validate=die)
        assert checkpoint_steps(tmp_path / "run")[-1] == 6
        training = Training(tmp_path / "run", keep=1)
    with pytest.raises(DivergedError, match=r"step 6.*ckpt-4 is kept; try a lower") as caught:
        training.go(validate=validate)
    assert len(str(caught.value).splitlines()) == 1
    assert checkpoint_steps(tmp_path / "run") == [4]
    assert checkpoint_steps(tmp_path / "run" / "best") == [4]
    assert 'path: "ckpt-4"' in (tmp_path / "run" / "checkpoint").read_text().splitlines()[0]


def test_a_disk_that_is_full_is_named_and_the_run_goes_on_afterwards(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    training = Training(folder)
    write = tf.train.Checkpoint.write

    def full(self: tf.train.Checkpoint, prefix: str, *args: Any) -> str:
        if prefix.endswith("ckpt-6"):
            Path(f"{prefix}.data-00000-of-00001").write_bytes(b"half")
            raise tf.errors.ResourceExhaustedError(None, None, f"{prefix}: No space left on device")
        return write(self, prefix, *args)

    with monkeypatch.context() as patch:
        patch.setattr(tf.train.Checkpoint, "write", full)
        with pytest.raises(ValueError, match=r"ckpt-6 could not be written: No space left"):
            training.go()
    assert checkpoint_steps(folder) == [2, 4]
    assert not list(folder.glob("*6*"))
    assert Training(folder).go() == 12
    assert left(folder) == left(whole)
