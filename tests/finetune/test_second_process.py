"""A folder that another process is training in: every command refuses it in one line."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from data_prep.storage import claimed
from finetune.cli import compare, depth_train, finetune, folds, transfer
from simclr_tf.cli import run as run_command
from tests.finetune.depth.sets import TINY, make_set
from tests.finetune.runs import write_encoder
from tests.images import make_split_folder

pytestmark = pytest.mark.slow

COMMANDS: dict[str, Sequence[str]] = {
    "simclr-run": (
        "--image_dir={images}", "--model_dir={output}", "--image_size=16", "--resnet_depth=18",
        "--width_multiplier=0.0625", "--train_steps=2", "--train_batch_size=4",
    ),
    "simclr-finetune": ("--encoder={encoder}", "--image_dir={images}", "--output={output}"),
    "simclr-transfer": (
        "--image_dir={images}", "--output={output}", "--backbone=mobilenet", "--weights=none",
        "--image_size=32", "--unfreeze_after=conv1_relu",
    ),
    "simclr-depth-train": ("--manifest={pairs}", "--output={output}"),
    "simclr-depth-train --per_case": ("--manifest={pairs}", "--output={output}", "--per_case"),
    "simclr-folds": ("--manifest={manifest}", "--seeds=0,1", "--output={output}"),
    "simclr-compare": ("--image_dir={images}", "--output={output}"),
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("places")
    make_set(root / "pairs", 8, ("train", "train", "validation", "test"))
    return {
        "images": make_split_folder(root / "images", train=4, held_out=3, size=16),
        "encoder": write_encoder(root / "encoder.keras"),
        "pairs": root / "pairs" / "manifest.csv",
        "manifest": root / "pairs" / "manifest.csv",
    }


def start(name: str, arguments: Sequence[str]) -> int:
    command = {
        "simclr-run": run_command, "simclr-finetune": finetune, "simclr-transfer": transfer,
        "simclr-depth-train": depth_train, "simclr-compare": compare, "simclr-folds": folds,
    }[name]  # fmt: skip
    return command.main(arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_process_is_refused_in_one_line_and_changes_nothing(
    name: str, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    arguments = [text.format(output=output, **places) for text in COMMANDS[name]]
    if name.startswith("simclr-depth"):
        arguments += [f"--{key}={value}" for key, value in TINY.items()]
    # The first stage of transfer has a folder of its own.
    first = output / "frozen_stage" if name == "simclr-transfer" else output
    with claimed(first, "first"):
        (first / ".lock").touch()
        before = sorted(output.rglob("*"))
        assert start(name.split(maxsplit=1)[0], arguments) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"{name.split(maxsplit=1)[0]}: error: --"), said
        assert str(first) in said
        assert "is at work there; wait for it to end" in said
        assert sorted(output.rglob("*")) == before
