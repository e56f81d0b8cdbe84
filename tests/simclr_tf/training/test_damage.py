"""A finished run whose files are damaged, killed for good, or claimed by another process."""

import logging
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.errors import UserError
from simclr_tf.checkpoints.store import checkpoint_steps
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.run import execute
from simclr_tf.training.run_dir import RunDir
from tests.damaging import CHANGES, Damage, do_damage
from tests.images import make_split_folder

pytestmark = pytest.mark.slow

VALUES: dict[str, Any] = {
    "image_size": 16, "resnet_depth": 18, "width_multiplier": 0.0625, "train_batch_size": 8,
    "eval_batch_size": 8, "train_steps": 6, "checkpoint_steps": 2, "warmup_epochs": 0.0,
    "learning_rate": 1.0, "precision": "float32", "health_watch": False, "validate_every": 1,
    "keep_checkpoint_max": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"), size=16)


def config(images: Path, folder: Path, **values: Any) -> RunConfig:
    given = {**VALUES, "image_dir": str(images), "model_dir": str(folder), **values}
    return RunConfig.from_values(given)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run [b=8] {1}*"
    assert execute(config(images, folder)) == 0
    return folder


@pytest.mark.parametrize("damage", CHANGES)
def test_every_file_of_the_state_is_named_and_mended(
    images: Path,
    whole: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Damage,
) -> None:
    """One after the other, in the same folder: each time the run is as it was afterwards."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    assert execute(config(images, folder)) == 0, "which notes the new place"
    for name in ("config.json", "environment.json", "blocks.json", "validation.csv", "checkpoint",
                 "encoder.keras", "manifest.csv", "preprocessing.json", "flags.json"):  # fmt: skip
        file = folder / name
        before = file.read_bytes()
        do_damage(file, damage)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert execute(config(images, folder)) == 0
        if name in ("config.json", "environment.json", "blocks.json", "validation.csv"):
            assert str(file) in caplog.text, f"{name} is named"
        if name in ("config.json", "blocks.json", "validation.csv", "manifest.csv"):
            assert file.read_bytes() == before, f"{name} is as it was"
        for kept in ("config.json", "environment.json", "blocks.json", "validation.csv"):
            assert not RunDir(folder).checksums.fault(kept), kept
        assert checkpoint_steps(folder / "best") == checkpoint_steps(whole / "best")


def test_a_run_that_diverges_ends_in_one_line_with_the_health_watch(
    images: Path, tmp_path: Path
) -> None:
    for precision in ("float32", "bfloat16"):
        folder = tmp_path / precision
        broken = config(images, folder, learning_rate=1e6, precision=precision, health_watch=True)
        with pytest.raises(UserError, match=r"(NaN|nan|inf|finite).*is kept; try a lower") as said:
            execute(broken)
        assert len(str(said.value).splitlines()) == 1


def test_a_run_killed_for_good_goes_on_while_a_second_process_is_refused(
    images: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    values = {**VALUES, "image_dir": images, "model_dir": folder, "train_steps": 6}
    flags = [f"--{name}={value}" for name, value in values.items()]
    program = [sys.executable, "-m", "simclr_tf.cli.run", *flags]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        try:
            while not (folder / "ckpt-2.index").exists():
                assert run.poll() is None
                time.sleep(0.02)
            with pytest.raises(UserError, match="another process is at work there"):
                RunDir(folder).claim().__enter__()
        finally:
            run.send_signal(signal.SIGKILL)
    assert execute(config(images, folder)) == 0
    for name in ("validation.csv", "metrics.csv"):
        ours, theirs = read_metrics(folder / name), read_metrics(whole / name)
        assert list(ours["step"]) == list(theirs["step"])
        for column in set(ours) - {"seconds"}:
            np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-5, err_msg=column)
    assert checkpoint_steps(folder / "best") == checkpoint_steps(whole / "best")
