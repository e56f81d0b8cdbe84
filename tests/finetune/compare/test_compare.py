"""The command from beginning to end, on tiny networks."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep.manifest.manifest import Manifest
from finetune.cli.compare import main
from finetune.compare.chain import Chain
from finetune.compare.images import load_division
from simclr_tf.checkpoints.load import load_encoder
from simclr_tf.models.variable_names import canonical_variables
from simclr_tf.training.health import DivergedError
from tests.chromium import look_at
from tests.docs import readme_arguments
from tests.finetune.runs import RESNET, write_encoder
from tests.images import make_folder

TINY = (
    "--label_fractions=0.2,1", "--folds=2", "--image_size=32", "--width_multiplier=0.125",
    "--pretrain_steps=4", "--finetune_steps=3",
)  # fmt: skip


def compare(*arguments: str) -> int:
    return main(list(arguments))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("compare") / "images", per_class=16, channels=1)


def command(images: Path, output: Path) -> list[str]:
    strategies = "--strategies=untrained,scratch,imagenet_supervised,simclr"
    return [f"--image_dir={images}", f"--output={output}", strategies, *TINY]


@pytest.fixture(scope="module")
def finished(images: Path) -> Path:
    """A comparison without ImageNet weights, by the README's line made smaller."""
    out = images.parent / "out"
    line = readme_arguments("simclr-compare")
    assert compare(*line, "--minutes=0", *command(images, out)) == 0
    return out


def lines(file: Path) -> list[dict[str, str]]:
    with open(file) as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_every_strategy_learns_from_the_same_labels_and_none_from_the_test(finished: Path) -> None:
    rows = lines(finished / "results.csv")
    assert {r["strategy"] for r in rows} == {
        "untrained", "scratch", "simclr (linear probe)", "simclr (fine-tuned)", "majority",
        "raw_pixels",
    }  # fmt: skip
    assert len(rows) == 6 * 2 * 2
    majority = [r for r in rows if r["strategy"] == "majority"]
    assert {round(float(r["balanced_accuracy"]), 6) for r in majority} == {round(1 / 3, 6)}
    for fold, fraction in ((r["fold"], r["fraction"]) for r in rows):
        own = [r["labels"] for r in rows if (r["fold"], r["fraction"]) == (fold, fraction)]
        assert len(set(own)) == 1
    assert {r["steps"] for r in rows if r["strategy"] == "scratch"} == {"9"}
    division = load_division(finished)
    test = set(division.test.files())
    pretrained = Manifest.load(finished / "encoders" / "simclr" / "manifest.csv")
    assert not test & set(pretrained.files())
    assert not any(record.label for record in pretrained.records)


@pytest.mark.slow
def test_pretraining_was_done_once_and_features_were_kept(finished: Path) -> None:
    assert sorted(p.name for p in (finished / "encoders").iterdir()) == [
        "simclr",
        "untrained.keras",
    ]
    assert sorted(p.name for p in (finished / "features").iterdir()) == [
        "raw_pixels.npz", "simclr.npz", "untrained_seed_0.npz",
    ]  # fmt: skip
    steps = lines(finished / "encoders" / "simclr" / "metrics.csv")
    assert len(steps) == 4


@pytest.mark.slow
def test_the_page_tells_table_recommendation_and_what_is_missing(
    finished: Path, tmp_path: Path
) -> None:
    said = (finished / "recommendation.txt").read_text()
    for seen in look_at(finished / "report.html", tmp_path):
        assert seen["content"] <= seen["width"]
        assert (seen["console"], seen["overlaps"]) == ([], [])
        assert said.splitlines()[0] in seen["text"]
        assert "imagenet_supervised was left out" in seen["text"]
        assert "--imagenet_weights=FILE" in seen["text"]
        assert "at chance" in seen["text"], "what the pretraining has warned of"
        assert "raw_pixels" in seen["text"]
        assert "Both sides share nothing" in seen["text"]
        assert seen["images"][0][0] > 800


@pytest.mark.slow
def test_a_pretraining_at_chance_is_said_first_on_the_page_and_in_the_recommendation(
    finished: Path, images: Path
) -> None:
    """Warnings that a run has kept reach whoever reads only the recommendation."""
    file = finished / "encoders" / "simclr" / "warnings.csv"
    before = file.read_text()
    file.write_text(f"{before}4,chance,the contrastive loss 12.176 is at chance (11.083)\n")
    try:
        assert compare(*command(images, finished)) == 0
        text = (finished / "recommendation.txt").read_text()
        page = (finished / "report.html").read_text()
    finally:
        file.write_text(before)
    first = text.splitlines()[0]
    assert "simclr (linear probe) and simclr (fine-tuned) has learnt nothing" in first
    assert "not more test images" in first
    assert "12.176 is at chance" in text
    assert "12.176 is at chance" in page


@pytest.mark.slow
def test_the_same_command_has_nothing_to_do_and_another_is_refused(
    finished: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = {p: p.stat().st_mtime_ns for p in finished.glob("cells/*/*.json")}
    before = {n: (finished / n).read_bytes() for n in ("results.csv", "comparisons.csv")}
    assert compare(*command(images, finished)) == 0
    assert {p: p.stat().st_mtime_ns for p in cells} == cells
    assert {n: (finished / n).read_bytes() for n in before} == before
    capsys.readouterr()
    assert compare(*command(images, finished), "--folds=3") == 1
    assert "folds was 2, is 3" in capsys.readouterr().err


@pytest.mark.slow
def test_a_strategy_that_diverges_is_left_out_with_a_word(
    images: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    work = Chain.run

    def run(self: Chain) -> None:
        if self._encoder.name == "simclr":
            raise DivergedError("total_loss is nan at step 2: the run stops, no checkpoint is kept")
        work(self)

    monkeypatch.setattr(Chain, "run", run)
    assert compare(*command(images, output)) == 0
    said = "simclr was left out, for its training diverged: total_loss is nan at step 2"
    assert said in capsys.readouterr().err
    assert said in (output / "report.html").read_text()
    strategies = {row["strategy"] for row in lines(output / "results.csv")}
    assert strategies == {"untrained", "scratch", "majority", "raw_pixels"}


@pytest.mark.slow
def test_a_killed_comparison_goes_on_to_the_same_results(
    finished: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    flags = [*command(images, out), "--strategies=untrained,simclr:probe"]
    process = subprocess.Popen(
        [sys.executable, "-m", "finetune.cli.compare", *flags],
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=dict(os.environ),
    )  # fmt: skip
    steps, deadline = out / "encoders" / "simclr" / "metrics.csv", time.monotonic() + 300
    while not (steps.exists() and steps.read_text().count("\n") > 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(out.glob("cells/*/fold_*.json"))) == 4, "those of the untrained network"
    assert not (out / "report.html").exists()
    assert compare(*flags) == 0
    resumed = sorted(out.glob("cells/*/fold_*.json"))
    assert len(resumed) == 16, "with those of the floors"
    for file in resumed:
        ours, theirs = (
            json.loads(path.read_text()) for path in (finished / file.relative_to(out), file)
        )
        np.testing.assert_allclose(ours["probabilities"], theirs["probabilities"], atol=1e-6)


@pytest.mark.thorough
@pytest.mark.slow
def test_a_public_checkpoint_is_trained_further_with_its_blocks_frozen(
    images: Path, tmp_path: Path
) -> None:
    encoder = write_encoder(tmp_path / "public.keras", channels=1, **RESNET)
    out = tmp_path / "out"
    flags = [
        f"--image_dir={images}", f"--output={out}", *TINY, f"--imagenet_checkpoint={encoder}",
        "--strategies=imagenet_simclr:probe,imagenet_simclr+simclr@0.5:probe",
        "--label_fractions=1", "--folds=1",
    ]  # fmt: skip
    assert compare(*flags) == 0
    assert [r["strategy"] for r in lines(out / "results.csv")] == [
        "imagenet_simclr (linear probe)", "imagenet_simclr+simclr@0.5 (linear probe)",
        "majority", "raw_pixels",
    ]  # fmt: skip
    folder = out / "encoders" / "imagenet_simclr-simclr-0.5"
    config = json.loads((folder / "config.json").read_text())
    assert config["start"]["fine_tune_after_block"] == 2
    before = canonical_variables(load_encoder(encoder))
    after = canonical_variables(load_encoder(folder))
    moved = {name: bool((np.asarray(before[name]) != np.asarray(after[name])).any())
             for name in before if name.startswith("base_model/") and "kernel" in name}  # fmt: skip
    last = [name for name in moved if moved[name]]
    assert 0 < len(last) < len(moved)
    assert not moved["base_model/conv2d/kernel"], "the stem was frozen"
    assert len(Manifest.load(folder / "manifest.csv")) == 19


@pytest.mark.slow
def test_a_budget_is_planned_by_timing_and_the_plan_is_kept(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = [
        f"--image_dir={images}", f"--output={out}", "--strategies=scratch,simclr:probe",
        "--image_size=32", "--width_multiplier=0.125", "--label_fractions=1", "--folds=1",
        "--minutes=4", "--plan_only",
    ]  # fmt: skip
    assert compare(*flags) == 0
    plan = json.loads((out / "plan.json").read_text())
    assert plan["sizes"]["pretrain_steps"] > 1
    assert plan["sizes"]["finetune_steps"] > 1
    assert 0 < plan["spent"] + sum(plan["seconds"].values()) <= 240
    assert any("Pretraining takes" in text for text in plan["said"])
    before = (out / "plan.json").read_bytes()
    assert compare(*flags) == 0
    assert (out / "plan.json").read_bytes() == before
    assert not (out / "cells").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either --image_dir=FOLDER or --manifest=FILE"),
        (["--image_dir=i", "--strategies=simcrl"], "did you mean simclr"),
        (["--image_dir=i", "--label_fractions=0,1"], "give shares above 0 up to 1"),
        (["--image_dir=i", "--test_share=1"], "must be between 0 and 1"),
        (["--image_dir=i", "--heads=half"], "give probe, full or both"),
        (["--image_dir=nowhere"], "image folder not found"),
        (["--image_dir=i", "--strategies=imagenet_simclr"], "nothing is left to compare"),
        (
            ["--image_dir=i", "--minutes=5", "--pretrain_steps=9", "--finetune_steps=9"],
            "--minutes plans the number of steps",
        ),
    ],
)
def test_impossible_wishes_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert compare("--output=o", *arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--label_fractions=0.1,few", "--label_fractions=0.1,few: give numbers, such as 0.1,1"),
        ("--frozen_blocks=4", "--frozen_blocks=4: must be at most 3"),
        ("--metric=auc", "--metric=auc: must be one of balanced_accuracy, accuracy, macro_f1"),
    ],
)
def test_values_outside_their_limits_are_wrong_usage(
    capsys: pytest.CaptureFixture[str], flag: str, said: str
) -> None:
    assert compare("--output=o", "--image_dir=i", flag) == 2
    assert said in capsys.readouterr().err


def test_a_folder_with_other_files_is_refused(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert compare(*command(images, tmp_path)) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
