"""Runs, stopped and finished, whose files are damaged, given to all commands that read them.

Each comes to the same result, or names the file.
"""

import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import scan_folder
from finetune.trained import BatchScorer, open_trained
from finetune.transfer import train_transfer
from finetune.transfer_config import TransferConfig
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.run import execute
from tests import tiny
from tests.damaging import Damage, do_damage, emptied, flipped, half, removed
from tests.images import make_split_folder
from tests.killing import WRITES, Killed, Run, assert_same, left

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {
    "image_size": 16, "backbone": tiny.NAME, "train_batch_size": 6, "eval_batch_size": 8,
    "train_steps": 6, "checkpoint_steps": 2, "warmup_epochs": 0.0, "learning_rate": 0.1,
    "precision": "float32", "keep_checkpoint_max": 2, "memory_check": False, "floors": False,
    "health_watch": False, "mode": "train",
}  # fmt: skip
STATE = ("config.json", "environment.json", "preprocessing.json", "manifest.csv", "checkpoint",
         "best/checkpoint")  # fmt: skip


@dataclass(frozen=True)
class State:
    """A folder in some state.

    Attributes:
        folder: It stays as it is.
        go: The command that has written it, which completes it.
        complete: What the command leaves without any damage.
        probabilities: Of the images, by the network in the folder; None if it cannot be used yet.
        images: A few, to be predicted.
    """

    folder: Path
    go: Run
    complete: dict[str, Any]
    probabilities: np.ndarray | None
    images: Manifest


def simclr_run(images: Path, **values: Any) -> Run:
    def go(folder: Path) -> int:
        given = {**TINY, "image_dir": str(images), "model_dir": str(folder), **values}
        return execute(RunConfig.from_values(given))

    return go


def transfer(images: Path) -> Run:
    def go(folder: Path) -> int:
        given = {
            "image_dir": str(images), "output": str(folder), "backbone": "mobilenet",
            "weights": "none", "cut_layer": "conv_pw_2_relu", "image_size": 32, "train_epochs": 3,
            "train_batch_size": 6, "bootstrap": 100, "grad_cam": "0", "precision": "float32",
            "floors": False, "memory_check": False,
        }  # fmt: skip
        return train_transfer(TransferConfig.from_values(given))

    return go


def stop(go: Run, folder: Path) -> None:
    """Dies before the index of the third checkpoint is in its place."""

    def before(_number: int) -> None:
        if WRITES.seen[-1][1].endswith("ckpt-6.index"):
            raise Killed(WRITES.seen[-1])

    with WRITES.below(folder, before=before), suppress(Killed):
        go(folder)
        raise AssertionError("it never wrote that")


def predicted(folder: Path, images: Manifest) -> np.ndarray:
    return BatchScorer(open_trained(str(folder)), 8).outputs(images)[0]


Made = Callable[[str, bool], State]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("damaged")
    images = make_split_folder(root / "images", train=4, held_out=3, size=16)
    few = scan_folder(images).split("test")

    def make(command: str, stopped: bool) -> State:
        place = root / f"{command}-{stopped}"
        if command == "transfer":
            go = transfer(images)
        else:
            values = {"train_mode": command}
            if command == "distill":
                teacher = root / "teacher" / "run"
                assert simclr_run(images, train_mode="finetune")(teacher) == 0
                values["teacher"] = str(teacher)
            go = simclr_run(images, **values)
        finished, folder = place / "finished" / "run", place / "state" / "run"
        assert go(finished) == 0
        if stopped:
            stop(go, folder)
        else:
            shutil.copytree(finished, folder)
        known = None
        with suppress(UserError):
            known = predicted(folder, few)
        assert (known is None) == (command == "transfer" and stopped)
        return State(folder, go, left(finished), known, few)

    return cache(make)


def check_reading(state: State, copy: Path, file: str, said: Callable[[], str]) -> None:
    """The network in the folder says the same, or the file is named; never something else."""
    try:
        found = predicted(copy, state.images)
    except UserError as error:
        text = str(error)
        assert len(text.splitlines()) == 1
        prefix = Path(file).name.split(".")[0]  # TensorFlow names a checkpoint, not its files
        assert prefix in text or state.probabilities is None, text
        return
    assert state.probabilities is not None
    if not np.allclose(found, state.probabilities, atol=1e-6):
        assert Path(file).name.split(".")[0] in said(), f"{file}: another result without a word"


def check_again(state: State, copy: Path, file: str) -> None:
    """The same command ends as without damage."""
    assert state.go(copy) == 0
    found, wanted = left(copy), dict(state.complete)
    for kept in (found, wanted):
        kept.pop("warnings.csv", None)
        for key in [key for key in kept if key == "names" or key.startswith("sums of")]:
            kept[key] = [n for n in kept[key] if n != "warnings.csv" and ".damaged" not in n]
        for key in [key for key in kept if key.startswith("faults of")]:
            kept[key] = {n: why for n, why in kept[key].items() if n != "warnings.csv"}
    assert_same(found, wanted, file)


@pytest.mark.parametrize(
    ("command", "stopped", "damages"),
    [
        ("transfer", False, [removed]),
        pytest.param("transfer", False, [half, emptied, flipped], marks=pytest.mark.thorough),
        *(
            pytest.param(command, stopped, [half, emptied, flipped, removed],
                         marks=pytest.mark.thorough)
            for command, stopped in (("pretrain", True), ("transfer", True), ("distill", False))
        ),
    ],
)  # fmt: skip
def test_damaged_files_are_named_or_change_nothing(
    made: Made, caplog: pytest.LogCaptureFixture,
    command: str, stopped: bool, damages: list[Damage],
) -> None:  # fmt: skip
    state = made(command, stopped)
    last = "model.keras" if command == "transfer" else "encoder.keras"
    more = (last, "report.json") if command == "transfer" else (last,)
    newest = "ckpt-4" if stopped else "ckpt-6"
    parts = (f"{newest}.index", f"{newest}.data-00000-of-00001")
    files = [f for f in (*STATE, *more, *parts) if (state.folder / f).is_file()]
    assert len(files) >= 6
    for number, (file, damage) in enumerate((f, d) for f in files for d in damages):
        # As deep as the folder, for its manifest tells where the images lie from there.
        copy = state.folder.parents[1] / str(number) / "run"
        shutil.copytree(state.folder, copy)
        do_damage(copy / file, damage)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            check_reading(state, copy, file, lambda: caplog.text)
            check_again(state, copy, file)
        shutil.rmtree(copy)
