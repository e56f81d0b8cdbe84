"""`simclr-manifest`: files of any kind to one table."""

import csv
from pathlib import Path

import numpy as np
import pytest

from data_prep.cli.manifest import main
from tests.data_prep.image_files import pixels, write, write_class_folders

SKY = np.random.default_rng(0).exponential(100, (4, 8, 8)).astype(np.float32)


def command(*flags: str) -> int:
    return main(list(flags))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tiles_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "images" / "rock" / "core.jpg", pixels(1, 20, 45))
    output = tmp_path / "m.csv"
    flags = [f"--image_dir={tmp_path / 'images'}", f"--output={output}", "--tile=10"]
    assert command(*flags) == 0
    found = rows(output)
    assert len(found) == 8
    assert found[5]["tile"] == "10,10,10,10"
    assert {row["group"] for row in found} == {"rock/core.jpg"}
    captured = capsys.readouterr()
    assert captured.out.split()[-2:] == ["8", "8"]
    assert "8 images from 1 picture\n" in captured.err
    before = output.read_bytes()
    assert command(*flags[:2], "--tile=5") == 1
    assert "is there already" in capsys.readouterr().err
    assert output.read_bytes() == before


def test_limits_are_found_in_the_training_split_or_left_to_the_run(tmp_path: Path) -> None:
    for split, image in zip(("train", "train", "val", "val"), SKY, strict=True):
        (tmp_path / "images" / split / "a").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "images" / split / "a" / f"{image[0, 0]}.npy", image)
    rule = ["--intensity=minmax", "--intensity_per=set"]
    assert command(f"--image_dir={tmp_path / 'images'}", f"--output={tmp_path / 'a.csv'}",
                   *rule) == 0  # fmt: skip
    low, high = float(SKY[:2].min()), float(SKY[:2].max())
    assert {row["reading"] for row in rows(tmp_path / "a.csv")} == {
        f"intensity=minmax@{low},{high}"
    }
    assert command(f"--image_dir={tmp_path / 'images' / 'train'}",
                   f"--output={tmp_path / 'b.csv'}", *rule) == 0  # fmt: skip
    assert {row["reading"] for row in rows(tmp_path / "b.csv")} == {"intensity=minmax@set"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--axes=HHW"], "axes 'HHW': must be such as HW"),
        (["--intensity=log"], "intensity rule 'log': must be one of"),
        (["--nan=max"], "--nan=max: must be one of refuse, min, zero, median"),
        (["--raw_shape=5,5"], "both shape and dtype"),
        (["--page=first"], "page 'first': must be a number"),
        (["--tile=512"], "smaller than --tile=512"),
        (["--manifest=m.csv"], "manifest not found"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    write_class_folders(tmp_path / "images", {"a": 1})
    output = tmp_path / "m.csv"
    assert command(f"--image_dir={tmp_path / 'images'}", f"--output={output}", *flags) in (1, 2)
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    assert not output.exists()
