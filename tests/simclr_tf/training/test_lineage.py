"""Which images a network has seen before: told by picture, not by file."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from data_prep.manifest import Manifest, Record
from simclr_tf.training.lineage import seen_before


def trained_on(folder: Path, *records: Record) -> Any:
    """A checkpoint of a run on some images."""
    folder.mkdir()
    Manifest(records, "/data").save(folder / "manifest.csv")
    (folder / "config.json").write_text(json.dumps({"data": {"train_split": "train"}}))
    place = SimpleNamespace(folder=str(folder))
    return SimpleNamespace(location=place, stored=SimpleNamespace(path=str(folder)))


def page(number: int | str, split: str, rule: str = "") -> Record:
    return Record("s.npy", split=split, reading=f"page={number};axes=NHW{rule}")


def seen(checkpoint: Any, *records: Record) -> list[str]:
    found = seen_before(checkpoint, Manifest(records, "/data"), "train")
    return [text.partition(" images were")[0] for text in found]


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
