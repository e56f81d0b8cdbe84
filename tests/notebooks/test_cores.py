"""The notebooks from zero and on drill cores, executed small."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.notebooks.executed import SMALL_NETWORK, TINY, execute

pytestmark = [pytest.mark.notebook, pytest.mark.slow]


def test_start_here_goes_from_a_folder_to_new_images(tmp_path: Path) -> None:
    done = execute(
        "start_here", tmp_path, **TINY, **SMALL_NETWORK, IMAGES_PER_CLASS="12", LABELS="2"
    )
    assert (done.folder / "check" / "report.html").exists()
    assert len(done.rows("split.csv")) == 48
    facts = json.loads((done.folder / "pretrain" / "result.json").read_text())
    printed = done.number(r"10-NN accuracy on the validation images: (\S+)")
    assert printed == pytest.approx(facts["validation/knn_accuracy"], abs=5e-4)
    accuracies = []
    for name, folder in (("pretrained", "finetuned"), ("from scratch", "from_scratch")):
        report = json.loads((done.folder / folder / "report.json").read_text())
        accuracies.append(report["splits"]["test"]["metrics"]["accuracy"]["value"])
        printed = done.number(rf"{name}: test accuracy (\S+)")
        assert printed == pytest.approx(accuracies[-1], abs=5e-4)
    verdict = json.loads((done.folder / "finetuned" / "floors.json").read_text())["verdict"]
    raw_pixels = next(f for f in verdict["floors"] if f["name"] == "raw_pixels")
    printed = done.number(r"raw pixels: test accuracy (\S+)")
    assert printed == pytest.approx(raw_pixels["metrics"]["accuracy"]["value"], abs=5e-4)
    assert verdict["sentence"] in done.text
    gain = done.number(r"pretrained minus from scratch: (\S+)")
    assert gain == pytest.approx(accuracies[0] - accuracies[1], abs=1.1e-3)
    assert len(done.rows("predictions.csv")) == 16
    assert done.pictures == 6


def test_drill_cores_are_fine_tuned_with_blocks_that_stay(tmp_path: Path) -> None:
    settings = {"IMAGES_PER_CLASS": "12", "FINETUNE_STEPS": "6", "HEAD_EPOCHS": "3"}
    done = execute("a_drill_core", tmp_path, **TINY, **SMALL_NETWORK, **settings)
    blocks = json.loads((done.folder / "finetune_after_3" / "result.json").read_text())["blocks"]
    moved = [name for name, hashes in blocks.items() if hashes["before"] != hashes["after"]]
    assert moved == ["block_group4", "supervised_head"]
    whole, frozen = done.text.split("finetune_after_3\n", 1)
    assert "moved:  stem, block_group1" in whole
    assert "moved:  block_group4, supervised_head\n" in frozen
    assert len(done.rows("head/history.csv")) == 3
    chosen = next((done.folder).glob("finetune_after_*/*predictions_test*.csv"))
    rows = done.rows(str(chosen.relative_to(done.folder)))
    right = np.mean([row["true"] == row["predicted"] for row in rows])
    printed = done.number(rf"{chosen.parent.name}: test accuracy (\S+)")
    assert printed == pytest.approx(right, abs=5e-4)
    report = json.loads((done.folder / "head" / "report.json").read_text())
    printed = done.number(r"head on frozen features: test accuracy (\S+)")
    accuracy = report["splits"]["test"]["metrics"]["accuracy"]["value"]
    assert printed == pytest.approx(accuracy, abs=5e-4)
    verdict = json.loads((done.folder / "head" / "floors.json").read_text())["verdict"]
    raw_pixels = next(f for f in verdict["floors"] if f["name"] == "raw_pixels")
    printed = done.number(r"raw pixels: test accuracy (\S+)")
    assert printed == pytest.approx(raw_pixels["metrics"]["accuracy"]["value"], abs=5e-4)
    assert done.pictures == 6
