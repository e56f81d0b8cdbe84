import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.cli.stats import main
from data_prep.manifest.scan import scan_folder
from data_prep.sources.tfrecord_writer import write_shards
from tests.data_prep.image_files import pixels, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Dark training images and bright test images."""
    for number in range(6):
        label = "ab"[number > 3]
        dark = pixels(number) // 2
        write(tmp_path / "set" / "train" / label / f"{number}.png", dark)
        write(tmp_path / "set" / "test" / label / f"{number}.png", 255 - dark)
    return tmp_path / "set"


def stats(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_only_training_images_count(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "numbers.json"
    assert stats(f"--image_dir={folder}", f"--output={output}") == 0
    found = json.loads(output.read_text())
    values = np.concatenate([(pixels(n) // 2).reshape(-1, 3) for n in range(6)]) / 255
    assert (found["split"], found["images"], found["pixels"]) == ("train", 6, 6 * 12 * 16)
    np.testing.assert_allclose(found["mean"], values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["std"], values.std(axis=0), rtol=1e-12)
    assert found["classes"] == {
        "a": {"images": 4, "weight": 0.75},
        "b": {"images": 2, "weight": 1.5},
    }


def test_the_table_shows_channels_classes_and_suggestions(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stats(f"--image_dir={folder}", "--split=test", "--image_channels=1") == 0
    printed = capsys.readouterr()
    rows = {line.split()[0]: line.split()[1:] for line in printed.out.splitlines() if line}
    assert rows["channel"][:2] == ["mean", "std"]
    assert 0.5 < float(rows["0"][0]) < 1
    assert (rows["a"], rows["b"]) == (["4", "0.7500"], ["2", "1.5000"])
    assert rows["pretraining"] == ["4", "1000", "1501"]
    assert "numbers of the test images: use none of them in training" in printed.err


def test_shards_give_the_numbers_of_the_folder(folder: Path, tmp_path: Path) -> None:
    write_shards(scan_folder(folder), tmp_path / "shards", 2)
    for where in (f"--image_dir={folder}", f"--tfrecord_dir={tmp_path / 'shards'}"):
        assert stats(where, f"--output={tmp_path / where[2:7]}") == 0
    assert (tmp_path / "image").read_text() == (tmp_path / "tfrec").read_text()


def test_a_set_without_splits_is_measured_whole_with_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stats(f"--image_dir={folder / 'train'}") == 0
    assert "those you will test on too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--image_dir={}", "--split=dev"], "--split=dev: the set has only train, test"),
        (["--image_dir={}", "--tfrecord_dir=x"], "give one of --image_dir"),
        (["--tfrecord_dir={}"], "no image shards in"),
        (
            ["--image_dir={}", "--output={}/train/a/0.png"],
            "is there already; give another --output",
        ),
        (["--image_dir={}", "--output={}/no/such.json"], "there is no folder"),
        (["--image_dir={}", "--image_channels=5"], "3 channels, which cannot become 5"),
        ([], "give either --image_dir"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stats(*(argument.format(folder) for argument in arguments)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert problem in error
    assert error.startswith("simclr-stats: error: ")
