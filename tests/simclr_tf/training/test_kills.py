"""Whole runs of the commands that are killed again and again, at every kind of their writes."""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simclr_tf.checkpoints.reading import read_tensors
from simclr_tf.checkpoints.store import checkpoint_steps
from simclr_tf.config import RunConfig
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.run import execute
from tests.images import make_split_folder
from tests.killing import WRITES, Killed

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {
    "image_size": 16, "resnet_depth": 18, "width_multiplier": 0.0625, "train_batch_size": 6,
    "eval_batch_size": 8, "train_steps": 6, "checkpoint_steps": 2, "warmup_epochs": 0.0,
    "learning_rate": 0.1, "precision": "float32", "validate_every": 1, "keep_checkpoint_max": 2,
    "memory_check": False, "floors": False,
}  # fmt: skip

Run = Callable[[Path], int]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"), train=4, held_out=3, size=16)


def simclr_run(images: Path, **values: Any) -> Run:
    def go(folder: Path) -> int:
        given = {**TINY, "image_dir": str(images), "model_dir": str(folder), **values}
        return execute(RunConfig.from_values(given))

    return go


def left(folder: Path) -> dict[str, Any]:
    """All that must not depend on interruptions, by name; numbers as arrays."""
    found: dict[str, Any] = {}
    for log in folder.rglob("*.csv"):
        name = str(log.relative_to(folder))
        if log.name in ("metrics.csv", "validation.csv", "history.csv"):
            found |= {f"{name}: {n}": v for n, v in read_metrics(log).items() if n != "seconds"}
        elif log.name != "warnings.csv":
            found[name] = log.read_text()
    for place in {file.parent for file in folder.rglob("ckpt-*.index")}:
        name = str(place.relative_to(folder))
        found[name] = checkpoint_steps(place)
        step = found[name][-1]
        for key, value in read_tensors(str(place / f"ckpt-{step}")).items():
            if value.dtype.kind == "f":
                found[f"{name}: {key}"] = value
    for name in ("result.json", "report.json", "blocks.json", "start_scores.json"):
        if (folder / name).exists():
            found[name] = json.loads((folder / name).read_text())
    found["names"] = sorted(
        p.name for p in folder.iterdir() if "tfevents" not in p.name and ".lock" not in p.name
    )
    return found


def assert_same(found: Any, wanted: Any, what: str) -> None:
    if isinstance(wanted, dict):
        assert sorted(found) == sorted(wanted), what
        for key in wanted:
            assert_same(found[key], wanted[key], f"{what}: {key}")
    elif isinstance(wanted, np.ndarray | float):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5, err_msg=what)
    else:
        assert found == wanted, what


def die_and_go_on(run: Run, folder: Path, lasts: Iterable[int]) -> int:
    """Each process dies before its n-th write, the next goes on; returns how many died."""
    for deaths, last in enumerate(lasts):
        with WRITES.below(folder, last=last), suppress(Killed):
            assert run(folder) == 0
        if len(WRITES.seen) < last:
            return deaths
    raise AssertionError("the run never came to its end")


def check(run: Run, tmp_path: Path, strides: Iterable[int] = (7,)) -> None:
    """A run that dies again and again, each time some writes later, is as one that does not."""
    assert run(tmp_path / "whole") == 0
    wanted = left(tmp_path / "whole")
    for stride in strides:
        folder = tmp_path / f"killed {stride}"
        assert die_and_go_on(run, folder, range(1, 10_000, stride)) > 5
        assert_same(left(folder), wanted, f"a death every {stride} writes later")


MODES = ["train", "train_then_eval"]


@pytest.mark.parametrize("mode", MODES)
def test_pretraining(images: Path, tmp_path: Path, mode: str) -> None:
    check(simclr_run(images, mode=mode), tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("mode", MODES)
def test_every_write_of_pretraining(images: Path, tmp_path: Path, mode: str) -> None:
    check(simclr_run(images, mode=mode), tmp_path, (1, 2, 3, 5))
