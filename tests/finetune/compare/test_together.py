import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import UserError
from finetune.compare import run as together
from finetune.compare.run import ParallelWorkers


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str]]:
    """Commands with the GPU that they see; two at a time meet before either goes on."""
    calls: list[tuple[list[str], str]] = []
    meet = threading.Barrier(2)

    def run(command: list[str], env: dict[str, str], check: bool) -> Any:
        calls.append((command[1:], env["CUDA_VISIBLE_DEVICES"]))
        if any(part.startswith("--only") for part in command):
            meet.wait(timeout=20)
        failed = command[-1] == "--only=broken"
        return subprocess.CompletedProcess(command, int(failed))

    monkeypatch.setattr(together.subprocess, "run", run)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    return calls


def test_chains_go_two_at_a_time_each_with_a_gpu_of_its_own(
    started: list[tuple[list[str], str]],
) -> None:
    ParallelWorkers(["a.module", "--seed=3"], 2).run(["simclr", "moco", "byol", "untrained"])
    assert sorted(command[-1] for command, _ in started) == [
        "--only=byol", "--only=moco", "--only=simclr", "--only=untrained",
    ]  # fmt: skip
    assert all(command[:3] == ["-m", "a.module", "--seed=3"] for command, _ in started)
    assert sorted(gpu for _, gpu in started) == ["4", "4", "6", "6"]


def test_a_chain_that_fails_is_named_after_all_others_have_ended(
    started: list[tuple[list[str], str]],
) -> None:
    with pytest.raises(UserError, match="broken did not come to an end"):
        ParallelWorkers(["a.module"], 2).run(["broken", "moco", "byol", "simsiam"])
    assert len(started) == 4


def test_what_has_been_planned_is_not_planned_again(
    started: list[tuple[list[str], str]], tmp_path: Path
) -> None:
    work = ParallelWorkers(["a.module"], 2)
    assert work.plan(tmp_path) == 0
    assert started[0][0][2:] == ["--plan_only", "--parallel=2"]
    (tmp_path / "plan.json").write_text("{}")
    assert work.plan(tmp_path) == 0
    assert len(started) == 1
