"""What pages begin with: why not to trust the numbers, floors, and what a run warned of."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from finetune.cli.folds import main as folds_main
from finetune.floors import read_floors, read_verdict
from simclr_tf.training.run_warnings import WARNINGS_FILE, read_alarms, read_warnings
from tests.finetune.runs import run, write_encoder
from tests.images import make_folder, make_split_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"), 8, 6, 32)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """An encoder in the folder of a run that was trained on all images."""
    from data_prep.manifest.manifest import Manifest, Record

    folder = tmp_path_factory.mktemp("pretrained")
    write_encoder(folder / "encoder.keras")
    files = [*images.rglob("*.png"), *(images.parent / "flat").rglob("*.png")]
    Manifest(tuple(Record(str(f), "", "train") for f in files)).save(folder / "manifest.csv")
    (folder / "config.json").write_text(json.dumps({"data": {"train_split": "train"}}))
    return folder / "encoder.keras"


def summary(page: Path) -> str:
    """The text of a page up to its first table."""
    import re

    html = page.read_text(encoding="utf-8")
    body = re.sub(r"(?s)<(style|script|head)\b.*?</\1>", "", html)
    return " ".join(re.sub(r"<[^>]+>", " ", body.partition("<table")[0]).split())


def test_a_report_begins_with_the_verdict_on_the_floors_and_holds_all_warnings(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = write_encoder(tmp_path / "encoder.keras")
    output = tmp_path / "run"
    with caplog.at_level(logging.INFO):
        assert run(encoder, images, output, head_only=True, floors=True) == 0
    verdict = read_verdict(output)
    assert verdict is not None
    floors = {floor["name"]: floor for floor in verdict["floors"]}
    assert list(floors) == ["majority", "raw_pixels", "untrained features"]
    assert floors["majority"]["metrics"]["accuracy"]["value"] == pytest.approx(1 / 3)
    said = summary(output / "report.html")
    headline = said.index("On 18 test images")
    assert said.index(verdict["sentence"]) < headline
    told = [record.getMessage() for record in caplog.records]
    assert told.index(verdict["sentence"]) > len(told) - 4
    assert any(text.endswith("report.html") for text in told[-2:])
    # Few updates: the terminal said so, and so does the page.
    kept = output / WARNINGS_FILE
    (warned,) = (w.message for w in read_warnings(kept) if w.message.startswith("only "))
    assert f"Warning of the run: O{warned[1:]}" in said
    assert read_alarms(kept) == ()
    # The scores of the floors are read back, and are those that the verdict is of.
    known = read_floors(output)
    assert known is not None
    assert len(known.images) == 18
    assert all(np.allclose(own.sum(axis=1), 1) for own in known.scores.values())


def test_without_floors_none_are_computed(images: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder.keras")
    values = {"head_only": True, "floors": False, "train_epochs": 1}
    assert run(encoder, images, tmp_path / "run", **values) == 0
    assert read_verdict(tmp_path / "run") is None
    assert "Floors" not in summary(tmp_path / "run" / "report.html")


def test_an_encoder_that_saw_the_test_images_is_said_first_on_every_page(
    seen: Path, images: Path, tmp_path: Path
) -> None:
    flat = make_folder(images.parent / "flat", per_class=6)
    from data_prep.manifest.manifest import Manifest, Record

    known = Manifest.load(seen.parent / "manifest.csv")
    more = tuple(Record(str(f), "", "train") for f in flat.rglob("*.png"))
    Manifest(known.records + more).save(seen.parent / "manifest.csv")
    output = tmp_path / "out"
    arguments = [
        f"--image_dir={flat}", "--folds=2", f"--output={output}", "--", f"--encoder={seen}",
        "--head_only", "--train_epochs=1", "--bootstrap=100", "--precision=float32",
    ]  # fmt: skip
    assert folds_main(arguments) == 0
    words = "test images were training images of"
    for page in (output / "fold_1" / "report.html", output / "folds.html"):
        said = summary(page)
        assert words in said
        for later in ("bove always", "bove logistic", "bove a linear", "accuracy 0."):
            assert later not in said or said.index(words) < said.index(later), page
    with (output / "folds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(words in row["alarms"] for row in rows)
    assert float(rows[0]["floor_majority"]) == pytest.approx(1 / 3)
    plan = json.loads((output / "folds.json").read_text())
    assert set(plan["alarms"]) == {"fold_1", "fold_2"}
    assert folds_main(arguments) == 0  # complete, and said again


def test_a_comparison_tells_both_sides(images: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder.keras")
    values = {"head_only": True, "train_epochs": 1, "floors": True}
    for name in ("a", "b"):
        assert run(encoder, images, tmp_path / name, seed=int(name == "b"), **values) == 0
    page = tmp_path / "compared"
    assert folds_main([f"--compare={tmp_path / 'a'},{tmp_path / 'b'}", f"--output={page}"]) == 0
    said = summary(page / "compare.html")
    assert "a: " in said
    assert said.count("bove ") >= 2
