"""`simclr-check`: exit codes, files, and what it refuses."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.cli.check import main


def make_set(folder: Path, odd_class: str = "<b>&amp;") -> Path:
    rng = np.random.default_rng(0)
    for label in ("a", odd_class):
        (folder / label).mkdir(parents=True)
        for i in range(10):
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
            coarse.resize((40, 40), Image.Resampling.BICUBIC).save(
                folder / label / f"{label}{i}.png"
            )
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["simclr-check", *arguments])
    return main()


def test_a_sound_set_gives_zero_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = make_set(tmp_path / "images"), tmp_path / "check"
    assert call(monkeypatch, f"--image_dir={folder}", f"--output={output}") == 0
    assert "nothing found" in capsys.readouterr().out
    assert json.loads((output / "check.json").read_text())["images"] == 20
    html = (output / "report.html").read_text()
    assert html.count("data:image/jpeg;base64,") == 20
    assert "<b>&amp;0" not in html
    assert "&lt;b&gt;&amp;amp;" in html
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html)


@pytest.mark.parametrize(("fail_on", "code"), [("serious", 3), ("warning", 3), ("never", 0)])
def test_serious_faults_give_three_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    fail_on: str, code: int,
) -> None:  # fmt: skip
    folder = make_set(tmp_path / "images", "b")
    shutil.copy(folder / "a" / "a0.png", folder / "b" / "copy.png")
    assert call(monkeypatch, f"--image_dir={folder}", f"--fail_on={fail_on}") == code
    assert "serious: 1 pair of identical files in two classes" in capsys.readouterr().out


def test_warnings_fail_only_when_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_set(tmp_path / "images", "b")
    shutil.copy(folder / "a" / "a0.png", folder / "a" / "copy.png")
    assert call(monkeypatch, f"--image_dir={folder}") == 0
    assert call(monkeypatch, f"--image_dir={folder}", "--fail_on=warning") == 3


def test_it_refuses_an_output_that_holds_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_set(tmp_path / "images")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    assert call(monkeypatch, f"--image_dir={folder}", f"--output={tmp_path / 'full'}") == 1
    assert "full is there already; give another --output" in capsys.readouterr().err
    assert (tmp_path / "full" / "precious").read_text() == "x"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either --image_dir=FOLDER or --manifest=FILE"),
        (["--image_dir=nowhere"], "image folder not found"),
        (["--manifest=nowhere.csv"], "manifest not found"),
    ],
)
def test_missing_images_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str],
    said: str,
) -> None:  # fmt: skip
    assert call(monkeypatch, *arguments) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
