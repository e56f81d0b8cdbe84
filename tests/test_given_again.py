"""Commands that are given again: the same words find the whole result, other words are refused.

Where the disk was full the same words make it whole.
"""

import importlib
import resource
import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.images import CLASSES, make_folder, make_split_folder

_PROJECT = Path(__file__).resolve().parents[1]
_SCRIPTS = tomllib.loads((_PROJECT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_folder(folder / "plain", per_class=4, size=16)
    make_split_folder(folder / "split", train=3, held_out=2, size=16)
    return folder


@pytest.fixture(scope="module")
def network(inputs: Path) -> Path:
    from tests.finetune.networks import write_run

    shutil.copytree(write_run(inputs / "network", CLASSES), inputs / "same")
    return inputs / "network"


def give(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> int:
    """Gives a command in a folder; its exit code."""
    module, function = _SCRIPTS[words[0]].split(":")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", list(words))
    return int(getattr(importlib.import_module(module), function)())


def state(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


_PLAIN, _SPLIT = "--image_dir=../inputs/plain", "--image_dir=../inputs/split"
_MODEL = "--model=../inputs/network"
_LOOKS = "--near_duplicates=ignore"
QUICK = {
    "split": ("simclr-split", _PLAIN, "--ratios=train:0.5,test:0.5", "--output=out.csv", _LOOKS,
              "--tree=tree"),
    "folds": ("simclr-split", _PLAIN, "--folds=2", "--output=out", _LOOKS),
    "few labels": ("simclr-label-fraction", _SPLIT, "--labels_per_class=1", "--output=out.csv"),
    "manifest": ("simclr-manifest", _PLAIN, "--output=out.csv"),
    "check": ("simclr-check", _PLAIN, "--output=out"),
    "synthesize": ("simclr-synthesize", "--image_size=16", "--images_per_class=1", "--output=out",
                   "--sheet=sheet.png"),
    "augment": ("simclr-augment", _SPLIT, "--output=out"),
}  # fmt: skip
_TENSORFLOW = {
    "stats": ("simclr-stats", _SPLIT, "--output=out.json"),
    "preview": ("simclr-augment", _SPLIT, "--preview=out.png", "--image_size=16"),
    "tfrecord": ("simclr-tfrecord", _SPLIT, "--output=out"),
    "predict": ("simclr-predict", _MODEL, _PLAIN, "--output=out.csv"),
    "onnx": ("simclr-export", _MODEL, "--output=out.onnx"),
    "saved model": ("simclr-export", _MODEL, "--output=out", "--format=saved_model"),
    "keras": ("simclr-convert", "--checkpoint=../inputs/network", "--output=out.keras"),
    "tf1": ("simclr-convert", "--checkpoint=../inputs/network", "--output=out", "--format=tf1"),
    "embed": ("simclr-embed", "--encoder=../inputs/network", _SPLIT, "--output=out",
              "--bootstrap=50", "--noexplore", "--nohdbscan", "--nokmeans"),
    "embeddings": ("simclr-embed", "--compare=../inputs/network,../inputs/same", _SPLIT,
                   "--output=out", "--bootstrap=50"),
}  # fmt: skip
_OTHER = {"simclr-predict": "--top_k=1", "simclr-export": "--input=prepared",
          "simclr-convert": "--part=model", "simclr-embed": "--normalize",
          "simclr-check": "--thumbnails=2", "simclr-manifest": "--tile=8",
          "simclr-stats": "--split=test", "simclr-tfrecord": "--num_shards=2"}  # fmt: skip


_ALL = [
    *(pytest.param(words, id=name) for name, words in QUICK.items()),
    *(pytest.param(words, id=name, marks=pytest.mark.slow) for name, words in _TENSORFLOW.items()),
]


@pytest.fixture
def folder(
    words: tuple[str, ...], inputs: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Path:
    """A folder to work in, with the inputs and, for commands that need it, a network beside it."""
    if any("network" in word for word in words):
        request.getfixturevalue("network")
    (tmp_path / "inputs").symlink_to(inputs)
    work = tmp_path / "work"
    work.mkdir()
    return work


@pytest.mark.parametrize("words", _ALL)
def test_a_command_given_again_is_complete_and_another_refused(
    words: tuple[str, ...],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = give(monkeypatch, folder, *words)
    assert code in (0, 3)
    before = state(folder)
    capsys.readouterr()

    assert give(monkeypatch, folder, *words) == code
    said = capsys.readouterr()
    assert "complete" in said.out + said.err
    assert state(folder) == before

    assert give(monkeypatch, folder, *words, _OTHER.get(words[0], "--seed=7")) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line)
    assert "--overwrite" in line or "another --" in line
    assert state(folder) == before

    for word in words:
        if word.startswith("--image_dir="):  # another image under the same name
            file = next((folder / word.partition("=")[2]).rglob("*.png"))
            picture = file.read_bytes()
            file.unlink()  # trees are linked to it
            file.write_bytes(picture + b"\0")
            assert give(monkeypatch, folder, *words) == 1
            file.write_bytes(picture)
    assert state(folder) == before


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes, as if the disk were full then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# The thumbnails that a check keeps elsewhere are larger than its page.
@pytest.mark.parametrize("words", [known for known in _ALL if known.id != "check"])
def test_a_disk_that_is_full_is_named_and_the_same_command_makes_it_whole(
    words: tuple[str, ...],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with largest_file(90):  # room for the notes on what is going on
        assert give(monkeypatch, folder, *words) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line)
    assert "could not be written: File too large (" in line
    assert "MiB are free" in line
    assert str(folder) in line
    visible = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    assert not visible, "what is half written has no name yet"
    assert give(monkeypatch, folder, *words) in (0, 3)
    assert give(monkeypatch, folder, *words) in (0, 3)
    said = capsys.readouterr()
    assert "complete" in said.out + said.err
