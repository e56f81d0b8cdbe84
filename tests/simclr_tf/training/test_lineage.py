"""Which images a network has seen before: told by picture, not by file."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from data_prep.manifest.manifest import Manifest, Record
from simclr_tf.training.from_checkpoint import seen_before, seen_by


def trained_on(folder: Path, *records: Record) -> Any:
    """A checkpoint of a run on some images."""
    folder.mkdir()
    Manifest(records, "/data").save(folder / "manifest.csv")
    (folder / "config.json").write_text(json.dumps({"data": {"train_split": "train"}}))
    return SimpleNamespace(stored=SimpleNamespace(path=str(folder / "ckpt-1")))


def page(number: int | str, split: str, rule: str = "") -> Record:
    return Record("s.npy", split=split, reading=f"page={number};axes=NHW{rule}")


def seen(checkpoint: Any, *records: Record) -> list[str]:
    found = seen_before(checkpoint, Manifest(records, "/data"), "train")
    return [text.partition(" image")[0] for text in found]


def test_other_pages_of_a_stack_were_not_seen(tmp_path: Path) -> None:
    checkpoint = trained_on(tmp_path / "run", page(0, "train"), page(1, "train"), page(2, "test"))
    assert seen(checkpoint, page(2, "test"), page(3, "test")) == []
    again = page(1, "test", ";intensity=sqrt")
    assert seen(checkpoint, again, page(2, "test")) == ["1 of 2 test"]
    assert seen(checkpoint, page("stack", "test")) == ["1 of 1 test"]


def test_arrays_of_a_file_are_told_apart(tmp_path: Path) -> None:
    array = {
        name: Record("s.h5", split="train", reading=f"array={name}" if name else "")
        for name in ("", "one", "two")
    }
    tested = {name: Record(r.path, split="test", reading=r.reading) for name, r in array.items()}
    checkpoint = trained_on(tmp_path / "run", array["one"])
    assert seen(checkpoint, tested["two"]) == []
    assert seen(checkpoint, tested["one"]) == seen(checkpoint, tested[""]) == ["1 of 1 test"]


def test_copies_under_other_names_and_runs_further_back_were_seen(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        for i in range(3):
            text = f"{'same' if i < 2 else name} {i}"
            (tmp_path / name / f"{name}{i}.png").write_text(text)
    old = Manifest([Record(f"first{i}.png", split="train") for i in range(3)], tmp_path / "first")
    new = Manifest([Record(f"second{i}.png", split="test") for i in range(3)], tmp_path / "second")
    run, later = tmp_path / "run", tmp_path / "later"
    for folder, start in ((run, ""), (later, str(run / "ckpt-1"))):
        folder.mkdir()
        facts = {"data": {"train_split": "train"}, "start": {"checkpoint": start}}
        (folder / "config.json").write_text(json.dumps(facts))
    old.save(run / "manifest.csv")
    new.subset([new.records[2]]).save(later / "manifest.csv")
    (said,) = seen_by(str(later / "saved_model" / "3" / "variables" / "variables"), new)
    assert said.startswith("2 of 3 test images were training images of ")
    assert str(run / "ckpt-1") in said
    for file in (tmp_path / "first").iterdir():
        file.unlink()
    assert seen_by(str(later / "ckpt-9"), new) == ()
