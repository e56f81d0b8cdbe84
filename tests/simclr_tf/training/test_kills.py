"""Whole runs of `simclr-run` that are killed between their writes, and given again."""

from pathlib import Path
from typing import Any

import pytest

from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.run import execute
from tests.images import make_split_folder
from tests.killing import Run, check_every_write, check_series

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {
    "image_size": 16, "resnet_depth": 18, "width_multiplier": 0.0625, "train_batch_size": 6,
    "eval_batch_size": 8, "train_steps": 6, "checkpoint_steps": 2, "warmup_epochs": 0.0,
    "learning_rate": 0.1, "precision": "float32", "validate_every": 1, "keep_checkpoint_max": 2,
    "memory_check": False, "floors": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"), train=4, held_out=3, size=16)


@pytest.fixture(scope="module")
def teacher(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    assert simclr_run(images, mode="train", train_mode="finetune")(folder) == 0
    return folder


def simclr_run(images: Path, **values: Any) -> Run:
    def go(folder: Path) -> int:
        given = {**TINY, "image_dir": str(images), "model_dir": str(folder), **values}
        return execute(RunConfig.from_values(given))

    return go


def of_mode(images: Path, train_mode: str, mode: str, request: pytest.FixtureRequest) -> Run:
    values = {"mode": mode, "train_mode": train_mode}
    if train_mode == "distill":
        values["teacher"] = str(request.getfixturevalue("teacher"))
    return simclr_run(images, **values)


@pytest.mark.parametrize(
    ("train_mode", "mode", "stride"),
    [
        ("pretrain", "train_then_eval", 53),
        ("finetune", "train", 17),
        pytest.param("distill", "train", 13, marks=pytest.mark.thorough),
    ],
)
def test_a_run_that_dies_again_and_again(
    images: Path, tmp_path: Path, request: pytest.FixtureRequest,
    train_mode: str, mode: str, stride: int,
) -> None:  # fmt: skip
    check_series(of_mode(images, train_mode, mode, request), tmp_path, stride, stride)


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["train", "train_then_eval"])
@pytest.mark.parametrize("train_mode", ["pretrain", "finetune", "distill"])
def test_every_write(
    images: Path, tmp_path: Path, request: pytest.FixtureRequest, train_mode: str, mode: str
) -> None:
    assert check_every_write(of_mode(images, train_mode, mode, request), tmp_path) > 100


@pytest.mark.thorough
def test_every_write_without_validation(images: Path, tmp_path: Path) -> None:
    assert check_every_write(simclr_run(images, mode="train", validate_every=0), tmp_path) > 80
