"""The runs of a sweep, each a `simclr-run` in a process of its own."""

import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from data_prep.phrases import format_seconds
from simclr_tf.sweeps.plan import MANIFEST, PlannedRun
from simclr_tf.training.fit import StopRequest
from simclr_tf.training.run_dir import RunDir

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_SECONDS_BETWEEN_LINES = 15.0
_TAIL_BYTES = 8192
_TIME_OF_DAY = re.compile(r"\d\d:\d\d:\d\d ")

Command = Callable[[PlannedRun], Sequence[str]]


def run_folder(run: PlannedRun, output: Path) -> RunDir:
    """The folder of a run."""
    return RunDir(output / "runs" / run.name)


def log_file(run: PlannedRun, output: Path) -> Path:
    """The file that takes a run's output."""
    return output / "logs" / f"{run.name}.log"


def is_finished(run: PlannedRun, output: Path) -> bool:
    """True if a run was trained, evaluated and exported (which comes last), and all is whole."""
    folder, name = run_folder(run, output), "result.json"
    if fault := folder.checksums.fault(name):
        log.warning("%s %s; it is made anew", folder.path / name, fault)
        return False
    return (folder.path / name).is_file() and folder.is_whole()


def run_arguments(run: PlannedRun, output: Path) -> list[str]:
    """All arguments of `simclr-run`; of flags that are given twice, the last one counts."""
    places = [f"--manifest={output / MANIFEST}", f"--model_dir={run_folder(run, output).path}"]
    return [*run.arguments, "--mode=train_then_eval", "--image_dir=", "--nooverwrite", *places]


def run_command(output: Path) -> Command:
    """Returns the function that makes the command line of a run."""
    return lambda run: [sys.executable, "-m", "simclr_tf.cli.run", *run_arguments(run, output)]


@dataclass
class _Active:
    """A run at work."""

    run: PlannedRun
    process: "subprocess.Popen[bytes]"
    log: Path
    began: float
    said: str = ""


def launch(
    runs: Sequence[PlannedRun],
    output: Path,
    command: Command,
    stop: StopRequest,
    *,
    parallel: int = 1,
    lock: IO[str] | None = None,
) -> list[str]:
    """Trains what is not finished yet.

    A run that fails is reported, and the others go on. When asked to stop, the runs at work are
    asked to save their state, and no other begins.

    Args:
        runs: In this order.
        output: The sweep's folder.
        command: What starts a run.
        stop: The request to stop.
        parallel: Runs at a time.
        lock: Open file that stays locked for as long as any run is at work.

    Returns:
        Names of the runs that failed.
    """
    waiting = [run for run in runs if not is_finished(run, output)]
    if len(waiting) < len(runs):
        log.info("%d of %d runs are finished", len(runs) - len(waiting), len(runs))
    (output / "logs").mkdir(exist_ok=True)
    (output / "runs").mkdir(exist_ok=True)
    active: list[_Active] = []
    failed: list[str] = []
    asked = False
    spoke = time.monotonic()
    try:
        while active or (waiting and not stop.signal):
            while waiting and len(active) < parallel and not stop.signal:
                active.append(_start(waiting.pop(0), output, command, lock))
            if stop.signal and not asked:
                asked = True
                for one in active:
                    one.process.send_signal(signal.SIGTERM)
            time.sleep(_POLL_SECONDS)
            for one in [one for one in active if one.process.poll() is not None]:
                active.remove(one)
                if not _ended(one, output, bool(stop.signal)):
                    failed.append(one.run.name)
            if time.monotonic() - spoke > _SECONDS_BETWEEN_LINES:
                spoke = time.monotonic()
                _say_progress(active, len(waiting))
    finally:
        for one in active:  # a second signal: they end at once, their last checkpoint counts
            one.process.terminate()
            one.process.wait()
    return failed


def _start(run: PlannedRun, output: Path, command: Command, lock: IO[str] | None) -> _Active:
    path = log_file(run, output)
    log.info("%s begins (%s)", run.name, path)
    with path.open("ab") as said:
        process = subprocess.Popen(
            command(run),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            # Ctrl-C goes to all processes of a terminal; a run would take the second request, which
            # comes from here, for "at once".
            start_new_session=True,
            pass_fds=[lock.fileno()] if lock else [],
        )
    return _Active(run, process, path, time.monotonic())


def _ended(one: _Active, output: Path, stopped: bool) -> bool:
    """Logs how a run ended; False if it failed."""
    code, seconds = one.process.returncode, format_seconds(time.monotonic() - one.began)
    if code == 0 and is_finished(one.run, output):
        log.info("%s is finished (%s)", one.run.name, seconds)
        return True
    if stopped:
        log.info("%s is stopped; the same command goes on with it", one.run.name)
        return True
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    last = _last_lines(one.log)[-1:] or ["it said nothing"]
    log.error("%s failed with %s: %s (%s)", one.run.name, how, last[0], one.log)
    return False


def _say_progress(active: Sequence[_Active], waiting: int) -> None:
    for one in active:
        # Only what our own log says, without its time of day.
        said = [line for line in _last_lines(one.log) if _TIME_OF_DAY.match(line)]
        if said and said[-1] != one.said:
            one.said = said[-1]
            log.info("%s: %s  (%d waiting)", one.run.name, said[-1].partition(" ")[2], waiting)


def _last_lines(path: Path) -> list[str]:
    """Lines at the end of a log that are not empty."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]
