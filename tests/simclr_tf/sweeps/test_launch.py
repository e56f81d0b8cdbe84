"""Processes of a sweep: skipped, failing, stopped, gone on with; runs here are small scripts."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.errors import UserError
from data_prep.storage import only_one
from simclr_tf.config.run_config import RunConfig
from simclr_tf.sweeps.launch import Command, is_finished, launch, log_file, run_arguments
from simclr_tf.sweeps.launch import _start as start
from simclr_tf.sweeps.plan import PlannedRun
from simclr_tf.training.fit import StopRequest

# Counts its starts, then does what it is told, and leaves what a finished run leaves.
_SCRIPT = """
import pathlib, signal, sys, time
folder, what = pathlib.Path(sys.argv[1]), sys.argv[2]
folder.mkdir(parents=True, exist_ok=True)
(folder / "starts").open("a").write("x")
print("12:00:00 hello", flush=True)
if what == "fail":
    print("simclr-run: error: the reason", file=sys.stderr)
    sys.exit(3)
if what == "wait" and not (folder / "saved").exists():
    def stop(*_):
        (folder / "saved").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, stop)
    (folder / "waiting").touch()
    time.sleep(60)
time.sleep(0.3)
(folder / "result.json").write_text("{}")
(folder / "encoder.keras").touch()
"""


def planned(*names: str) -> list[PlannedRun]:
    return [PlannedRun(name, {}, (f"--seed={i}",), RunConfig()) for i, name in enumerate(names)]


def script(output: Path, **told: str) -> Command:
    return lambda run: [
        sys.executable, "-c", _SCRIPT, str(output / "runs" / run.name), told.get(run.name, "work"),
    ]  # fmt: skip


def starts(output: Path, name: str) -> int:
    file = output / "runs" / name / "starts"
    return len(file.read_text()) if file.exists() else 0


def once(there: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not there():
        assert time.monotonic() - began < 30
        time.sleep(0.02)


def test_finished_runs_are_skipped_and_a_failing_one_does_not_stop_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs, command = planned("a", "b", "c"), script(tmp_path, b="fail")
    with caplog.at_level(logging.INFO):
        assert launch(runs, tmp_path, command, StopRequest()) == ["b"]
    assert "b failed with exit code 3: simclr-run: error: the reason" in caplog.text
    assert [is_finished(run, tmp_path) for run in runs] == [True, False, True]
    assert launch(runs, tmp_path, script(tmp_path), StopRequest()) == []
    assert [starts(tmp_path, name) for name in "abc"] == [1, 2, 1]
    assert log_file(runs[1], tmp_path).read_text().count("hello") == 2


def test_a_run_that_ends_without_result_has_failed(tmp_path: Path) -> None:
    nothing: Command = lambda run: [sys.executable, "-c", ""]  # noqa: E731
    assert launch(planned("a"), tmp_path, nothing, StopRequest()) == ["a"]


def test_so_many_runs_are_at_work_at_a_time(tmp_path: Path) -> None:
    runs = planned("a", "b", "c")
    told = script(tmp_path, a="wait", b="wait", c="wait")
    stop = StopRequest()

    def ask() -> None:
        once(lambda: all((tmp_path / "runs" / n / "waiting").exists() for n in "ab"))
        time.sleep(0.5)
        stop.signal = signal.SIGTERM

    asker = threading.Thread(target=ask)
    asker.start()
    assert launch(runs, tmp_path, told, stop, parallel=2) == []
    asker.join()
    # Both were asked to save their state, the third never began, and all go on.
    assert [starts(tmp_path, name) for name in "abc"] == [1, 1, 0]
    assert all((tmp_path / "runs" / name / "saved").exists() for name in "ab")
    assert launch(runs[:2], tmp_path, told, StopRequest(), parallel=2) == []
    assert all(is_finished(run, tmp_path) for run in runs[:2])


def test_no_run_survives_a_second_interrupt(tmp_path: Path) -> None:
    told = script(tmp_path, a="wait")

    def interrupt() -> None:
        once((tmp_path / "runs" / "a" / "waiting").exists)
        os.kill(os.getpid(), signal.SIGINT)

    asker = threading.Thread(target=interrupt)
    asker.start()
    with pytest.raises(KeyboardInterrupt):
        launch(planned("a"), tmp_path, told, StopRequest())  # not listening: as the second is
    asker.join()
    assert (tmp_path / "runs" / "a" / "saved").exists()


def test_a_run_keeps_the_folder_locked_when_its_sweep_is_killed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (run,) = planned("a")
    lock_file = tmp_path / "lock"
    with only_one(lock_file, "busy") as lock:
        active = start(run, tmp_path, script(tmp_path, a="wait"), lock)
        once((tmp_path / "runs" / "a" / "waiting").exists)
    # The sweep's own hold has gone, as after kill -9; the run's has not.
    with pytest.raises(UserError, match="busy"), only_one(lock_file, "busy"):
        pass
    active.process.terminate()
    active.process.wait()
    with only_one(lock_file, "busy"):
        pass


def test_images_and_folder_are_those_of_the_sweep_whatever_the_flags_say(tmp_path: Path) -> None:
    run = PlannedRun("a", {}, ("--image_dir=x", "--model_dir=y", "--mode=eval"), RunConfig())
    last = dict(argument[2:].partition("=")[::2] for argument in run_arguments(run, tmp_path))
    assert last["image_dir"] == ""
    assert last["manifest"] == str(tmp_path / "manifest.csv")
    assert last["model_dir"] == str(tmp_path / "runs" / "a")
    assert last["mode"] == "train_then_eval"
