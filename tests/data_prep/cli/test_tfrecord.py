from pathlib import Path

import pytest

from data_prep.cli.tfrecord import main
from data_prep.manifest.manifest import Manifest
from data_prep.sources.streams import TFRecordSource
from tests.data_prep.image_files import write_class_folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, number in (("train", 6), ("validation", 3)):
        write_class_folders(tmp_path / "set" / split, {"a": number, "b": number})
    return tmp_path / "set"


def tfrecord(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_a_folder_becomes_shards_that_verify(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "shards"
    assert tfrecord(f"--image_dir={folder}", f"--output={output}", "--num_shards=3") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:3] for row in rows[1:]] == [["train", "12", "3"], ["validation", "6", "3"]]
    source = TFRecordSource(output, "validation")
    assert (source.num_examples, source.class_names) == (6, ("a", "b"))
    assert tfrecord(f"--verify={output}") == 0
    assert "6 shards" in capsys.readouterr().out
    assert tfrecord(f"--image_dir={folder}", f"--output={output}", "--num_shards=3") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == rows
    assert tfrecord(f"--image_dir={folder}", f"--output={output}", "--num_shards=2") == 1
    assert "is not empty" in capsys.readouterr().err


def test_verify_names_the_damaged_shard_and_fails(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "shards"
    tfrecord(f"--image_dir={folder}", f"--output={output}", "--num_shards=2")
    shard = output / "train-00001-of-00002.tfrecord"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    capsys.readouterr()
    assert tfrecord(f"--verify={output}") == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{shard.name}: its bytes have changed (SHA-256 differs)"
    assert printed[1].endswith(": 1 damaged")


def test_a_manifest_and_a_folder_give_the_same_shards(folder: Path, tmp_path: Path) -> None:
    from data_prep.manifest.scan import scan_folder

    manifest = scan_folder(folder)
    Manifest(manifest.records, str(folder)).save(folder / "m.csv")
    tfrecord(f"--image_dir={folder}", f"--output={tmp_path / 'one'}")
    tfrecord(f"--manifest={folder / 'm.csv'}", f"--output={tmp_path / 'two'}", "--workers=3")
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two


def test_fewer_than_no_workers_are_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tfrecord(f"--image_dir={tmp_path}", f"--output={tmp_path}/new", "--workers=-1") == 2
    assert "--workers=-1: must be at least 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--image_dir={}"], "--output is missing"),
        (["--output={}/new"], "give either --image_dir"),
        (["--image_dir={}", "--output={}"], "is not empty: give another --output"),
        (["--image_dir={}", "--output={}/new", "--num_shards=7"], "do not fill 7 shards"),
        (["--image_dir={}", "--output={}/new", "--shard_mb=0"], "must be above 0"),
        (["--verify={}"], "no image shards in"),
        (["--verify={}", "--image_dir={}"], "leave --image_dir away"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tfrecord(*(argument.format(folder) for argument in arguments)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert problem in error
    assert not (folder / "new").exists()
