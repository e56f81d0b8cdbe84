"""The commands of the README are run, in its order, on generated images, smaller than written.

The two that take longest are run by tests that were there for them, which take the README's line
too (`ELSEWHERE`). One value is replaced: `simclr-convert` gets a checkpoint of this place instead
of one that it would download. Not run are `make test` itself and `pip install .` (`make test`
builds the wheel and installs it elsewhere); of `make demo` it is looked at what it would run.
"""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.cli.app import parse
from data_prep.manifest.manifest import Manifest
from simclr_tf.checkpoints.load import load_encoder
from simclr_tf.config.run_config import RunConfig
from tests.docs import (
    COMMANDS,
    ROOT,
    blocks,
    defined_flags,
    inline_code,
    own_commands,
    run_command,
    shell_lines,
    table_below,
    text_of,
)

README = text_of("README.md")
PRETRAIN = text_of("docs/pretrain.md")
IN_PYTHON = text_of("docs/checkpoints.md")

ELSEWHERE = {
    "simclr-demo": "tests/finetune/test_demo.py",
    "simclr-compare": "tests/finetune/compare/test_compare.py",
}
PER_CLASS, CLASSES = 10, 13
IMAGES = PER_CLASS * CLASSES
# What makes each command small: enough to see everything written, and no more.
SMALLER = {
    "simclr-synthesize": [f"--images_per_class={PER_CLASS}", "--image_size=36"],
    "simclr-check": [],
    "simclr-run": [
        "--image_size=32", "--width_multiplier=0.0625", "--train_batch_size=8",
        "--eval_batch_size=64", "--precision=float32", "--train_steps=4", "--checkpoint_steps=2",
    ],
    "simclr-pretrain": [
        "--image_size=32", "--width_multiplier=0.0625", "--train_steps=2", "--nofloors",
    ],
    "simclr-finetune": ["--train_batch_size=16", "--train_steps=2", "--bootstrap=100"],
    "simclr-predict": [],
    "simclr-embed": ["--bootstrap=100", "--projections=pca"],
    "simclr-zoo": [],
    "simclr-convert": ["--checkpoint=runs/pretrain"],
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which they have run."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, arguments in own_commands(README):
            if name in SMALLER:
                code = run_command(name, [*arguments, *SMALLER[name]])
                assert code == 0, f"{name}: {code}"
    return folder


def test_every_command_line_of_the_readme_is_run_or_named_here() -> None:
    assert {*SMALLER, *ELSEWHERE} == {name for name, _ in own_commands(README)}
    for name, file in ELSEWHERE.items():
        assert f'readme_arguments("{name}")' in text_of(file), file
    others = [w for w in shell_lines(README) if w[0] not in {*COMMANDS, "simclr"}]
    assert others == [
        ["make", "demo"],
        ["make", "test"],
        ["pip", "install", "."],
        ["make", "notebooks"],  # its program is imported by tests/notebooks
        ["make", "test-notebooks"],
    ]


def test_make_demo_runs_the_demonstration_on_generated_images() -> None:
    printed = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    program, *arguments = shlex.split(printed.stdout.splitlines()[-1])
    assert program.endswith("bin/simclr-demo")
    values = defined_flags("simclr-demo")
    parse(values, arguments, "simclr-demo")
    assert (values["image_dir"].value, values["output"].value) == ("", "demo")


@pytest.mark.slow
def test_every_command_leaves_what_the_readme_says(place: Path) -> None:
    assert len(Manifest.load(place / "runs/pretrain/manifest.csv")) == IMAGES
    for page in ("check/report.html", "runs/classifier/report.html", "embedding/explore.html"):
        assert (place / page).stat().st_size > 10_000, page
    with open(place / "predictions.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == IMAGES
    with open(place / "embedding/suggestions.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 50
    converted, original = (
        load_encoder(place / "encoder.keras"),
        load_encoder(place / "runs/pretrain"),
    )
    images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    np.testing.assert_allclose(converted(images), original(images), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("run_name", ["pretrain", "finetune"])
def test_a_run_holds_the_files_of_the_table_and_no_others(place: Path, run_name: str) -> None:
    model_dir = place / "runs" / run_name
    rows = table_below("## What a run leaves behind", PRETRAIN)[1:]
    named = [
        re.findall(r"`([^`]+)`", name)[0]
        for name, text in rows
        if run_name == "pretrain" or not text.startswith("pretraining only")
    ]
    patterns = [name.replace("SPLIT", "*").replace("N", "*") for name in named]
    for pattern in patterns:
        assert list(model_dir.glob(pattern)), pattern
    top_level = {path for pattern in patterns for path in model_dir.glob(pattern.split("/")[0])}
    assert {path.name for path in model_dir.iterdir()} == {path.name for path in top_level}


@pytest.mark.slow
def test_what_the_text_says_of_the_two_runs_is_so(place: Path) -> None:
    result = json.loads((place / "runs/finetune/result.json").read_text())
    assert result["eval_split"] == "test"
    low, value, high = (result[f"test/label_top_1_accuracy{end}"] for end in ("_low", "", "_high"))
    assert 0 <= low <= value <= high <= 1
    environment = json.loads((place / "runs/pretrain/environment.json").read_text())
    folders = sorted(path.name for path in (place / "images").iterdir() if path.is_dir())
    assert environment["class_names"] == folders
    splits = [
        (place / "runs" / name / "manifest.csv").read_text() for name in ("pretrain", "finetune")
    ]
    assert splits[0] == splits[1], "both commands train on the same images"


@pytest.mark.slow
def test_flags_txt_repeats_a_run_elsewhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.test_readme import configuration

    code = next(code for code in inline_code(PRETRAIN) if code.startswith("--flagfile="))
    monkeypatch.chdir(place)
    values = configuration(shlex.split(code)).values()
    before = RunConfig.load("runs/pretrain/config.json").values()
    differing = {name for name in values if values[name] != before[name]}
    assert differing == {"model_dir"}


@pytest.mark.slow
def test_the_python_of_the_docs_runs(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("images", "runs"):
        shutil.copytree(place / name, tmp_path / name, copy_function=os.link)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("python", IN_PYTHON):
        exec(compile(block, "docs/checkpoints.md", "exec"), names)
    images, features, facts = names["images"], names["features"], names["facts"]
    classes = facts["class_names"]
    assert images.shape == (IMAGES, 32, 32, 1)
    assert features.shape == (IMAGES, names["encoder"].feature_dim)
    assert names["probabilities"].shape == (IMAGES, CLASSES)
    np.testing.assert_allclose(np.sum(names["probabilities"], axis=1), 1, atol=1e-5)
    assert len(names["history"].history["loss"]) == 3
    # The fine-tuned run's own predictions, from the same images.
    with open("runs/finetune/predictions_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    position = {path.as_posix().removeprefix("images/"): i for i, path in enumerate(names["paths"])}
    mine = np.array([names["probabilities"][position[row["path"]]] for row in rows])
    theirs = np.array([[float(row[f"score_{name}"]) for name in classes] for row in rows])
    np.testing.assert_allclose(mine, theirs, atol=1e-5)
