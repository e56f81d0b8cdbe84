"""Whole runs of `finetune` commands that are killed between their writes, and given again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.depth.runs import train_all
from finetune.transfer import train_transfer
from finetune.transfer_config import TransferConfig
from tests.finetune.depth.sets import config as depth_config
from tests.finetune.depth.sets import make_set
from tests.finetune.runs import run, write_encoder
from tests.images import make_split_folder
from tests.killing import Run, check_every_write, check_series

pytestmark = pytest.mark.slow

CYCLE: dict[str, Any] = {
    "model": "cyclegan", "filters": "2,2", "residual_blocks": 0, "guided_weight": 1.0,
    "pool_size": 5, "learning_rate": 2e-3,
}  # fmt: skip
STAGES: dict[str, Any] = {"unfreeze_after": "conv1_relu", "unfreeze_epochs": 2}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"), train=4, held_out=3, size=16)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder.keras")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    make_set(folder, 8, ("train", "train", "validation", "test"))
    return folder


Make = Callable[..., Run]


@pytest.fixture
def finetuning(images: Path, encoder: Path) -> Make:
    def make(**values: Any) -> Run:
        given = {"image_size": 16, "train_epochs": 2, "train_batch_size": 6, **values}
        return lambda folder: run(encoder, images, folder, memory_check=False, **given)

    return make


@pytest.fixture
def transfer(images: Path) -> Make:
    def make(**values: Any) -> Run:
        def go(folder: Path) -> int:
            given = {
                "image_dir": str(images), "output": str(folder), "backbone": "mobilenet",
                "weights": "none", "cut_layer": "conv_pw_2_relu", "image_size": 32,
                "train_epochs": 2, "train_batch_size": 6, "bootstrap": 100, "grad_cam": "0",
                "precision": "float32", "floors": False, "memory_check": False, **values,
            }  # fmt: skip
            return train_transfer(TransferConfig.from_values(given))

        return go

    return make


@pytest.fixture
def depth(pairs: Path) -> Make:
    def make(**values: Any) -> Run:
        given = {"train_epochs": 2, "memory_check": False, **values}
        return lambda folder: train_all(depth_config(pairs, folder, **given))

    return make


def made(request: pytest.FixtureRequest, command: str, values: dict[str, Any]) -> Run:
    make: Make = request.getfixturevalue(command)
    return make(**values)


@pytest.mark.parametrize(
    ("command", "values", "stride"),
    [
        ("finetuning", {"floors": False}, 31),
        ("transfer", STAGES, 47),
        ("depth", {}, 11),
        pytest.param("depth", CYCLE, 11, marks=pytest.mark.thorough),
        pytest.param("finetuning", {"head_only": True, "augment": "none"}, 41,
                     marks=pytest.mark.thorough),
    ],
)  # fmt: skip
def test_a_run_that_dies_again_and_again(
    request: pytest.FixtureRequest, tmp_path: Path,
    command: str, values: dict[str, Any], stride: int,
) -> None:  # fmt: skip
    check_series(made(request, command, values), tmp_path, stride, stride)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("command", "values"),
    [
        ("finetuning", {"floors": True}),
        ("finetuning", {"head_only": True, "augment": "none", "floors": False}),
        ("transfer", {}),
        ("transfer", STAGES),
        ("depth", {"sample_every": 1}),
        ("depth", CYCLE),
    ],
)
def test_every_write(
    request: pytest.FixtureRequest, tmp_path: Path, command: str, values: dict[str, Any]
) -> None:
    assert check_every_write(made(request, command, values), tmp_path) > 80
