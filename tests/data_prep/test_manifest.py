import csv
import os
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.manifest import Manifest, Record, canonical_split


def example(root: str = "") -> Manifest:
    return Manifest(
        (
            Record("b/1.png", "b", "validation"),
            Record("a/1.png", "a", "train", group="g1", case="2", target="depth/1.png"),
            Record("a/2.png", "a", "test"),
            Record("x.png", "", "extra"),
        ),
        root,
    )


def test_classes_are_sorted_and_splits_in_their_usual_order() -> None:
    assert example().class_names == ("a", "b")
    assert example().splits == ("train", "validation", "test", "extra")
    assert [record.path for record in example().split("train").records] == ["a/1.png"]


def test_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no split 'dev' \(its splits: train, validation, test"):
        example().split("dev")


def test_label_indices_follow_the_given_classes() -> None:
    indices = example().label_indices(["z", "b", "a"])
    assert indices.tolist() == [1, 2, 2, -1]
    assert indices.dtype == np.int64
    with pytest.raises(UserError, match="'b' is not among the 1 known classes"):
        example().label_indices(["a"])


def test_files_are_absolute(tmp_path: Path) -> None:
    assert example(str(tmp_path)).files()[0] == str(tmp_path / "b" / "1.png")
    assert example().files()[0] == os.path.join(os.getcwd(), "b", "1.png")


def test_round_trip_beside_the_images_is_exact(tmp_path: Path) -> None:
    manifest = example(str(tmp_path))
    manifest.save(tmp_path / "images.csv")
    assert Manifest.load(tmp_path / "images.csv") == manifest


def test_round_trip_elsewhere_keeps_files_and_hash(tmp_path: Path) -> None:
    manifest = example(str(tmp_path / "images"))
    manifest.save(tmp_path / "new" / "run" / "manifest.csv")
    loaded = Manifest.load(tmp_path / "new" / "run" / "manifest.csv")
    assert loaded.files() == manifest.files()
    assert loaded.sha256() == manifest.sha256()
    assert [record.label for record in loaded.records] == ["b", "a", "a", ""]


def test_awkward_names_survive(tmp_path: Path) -> None:
    names = ['k"o, mma.png', "日本語/ß ü.png", "new\nline.png", "semi;colon.png"]
    manifest = Manifest(tuple(Record(name, "Größe, µm") for name in names), str(tmp_path))
    manifest.save(tmp_path / "m.csv")
    assert Manifest.load(tmp_path / "m.csv") == manifest


def test_hash_depends_on_content_and_order_but_not_on_the_place() -> None:
    hashes = {
        example("/data/one").sha256(),
        Manifest(example().records[::-1]).sha256(),
        Manifest((*example().records[:3], Record("x.png", "a", "extra"))).sha256(),
    }
    assert len(hashes) == 3
    assert example("/data/one").sha256() == example("/elsewhere/two").sha256()
    # Fixed once, so that runs saved by an earlier version can go on.
    assert example("/data/one").sha256().startswith(GOLDEN_HASH)


GOLDEN_HASH = "45e6acd77b05878f"


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "m.csv"
    example(str(tmp_path)).save(target)
    before = target.read_text()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        Manifest((Record("other.png"),), str(tmp_path)).save(target)
    assert target.read_text() == before
    assert os.listdir(tmp_path) == ["m.csv"]


def test_table_counts_classes_and_splits() -> None:
    rows = [line.split("  ") for line in example().table().splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells == [
        ["class", "train", "validation", "test", "extra", "total"],
        ["a", "1", "0", "1", "0", "2"],
        ["b", "0", "1", "0", "0", "1"],
        ["no label", "0", "0", "0", "1", "1"],
        ["total", "1", "1", "1", "1", "4"],
    ]


def load(tmp_path: Path, text: str) -> Manifest:
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    return Manifest.load(tmp_path / "m.csv")


def test_columns_may_be_few_reordered_and_more(tmp_path: Path) -> None:
    manifest = load(
        tmp_path, "\ufeffSplit, label ,Path,weight\nval,cat,a.png,3\ntrain,dog,b.png,1\n"
    )
    assert manifest.records == (
        Record("a.png", "cat", "validation"),
        Record("b.png", "dog", "train"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,x\n", "needs a column 'path'"),
        ("path;label\na.png;x\n", "comma-separated"),
        ("", "needs a column 'path'"),
        ("path,label\n", "lists no images"),
        ("path,label\na.png,x\n,y\n", "line 3: the path is empty"),
        ("path,split\na.png,train\nb.png,\n", "1 of 2 images have no split"),
        ("path,split\na.png,train\n./a.png,test\n", "in two splits, train and test"),
        ("path,label\na.png,x\na.png,y\n", "listed twice"),
    ],
)
def test_bad_manifests_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_missing_or_binary_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="manifest not found"):
        Manifest.load(tmp_path / "none.csv")
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe\x00")
    with pytest.raises(UserError, match="not a CSV file"):
        Manifest.load(tmp_path / "image.csv")


def test_saved_file_is_plain_csv(tmp_path: Path) -> None:
    example(str(tmp_path)).save(tmp_path / "m.csv")
    with open(tmp_path / "m.csv", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["path", "label", "split", "group", "case", "target"]
    assert rows[2] == ["a/1.png", "a", "train", "g1", "2", "depth/1.png"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("training", "train"),
        ("Train_Set", "train"),
        ("train-data", "train"),
        ("VAL", "validation"),
        ("valid_set", "validation"),
        ("testing", "test"),
        ("latest", "latest"),
        (" dev ", "dev"),
    ],
)
def test_split_names(name: str, split: str) -> None:
    assert canonical_split(name) == split


@pytest.mark.parametrize("split", ["../../x", "a/b", "a\\b", "C:x", ".hidden"])
def test_a_split_that_could_name_a_file_elsewhere_is_refused(tmp_path: Path, split: str) -> None:
    (tmp_path / "m.csv").write_text(f"path,split\na.png,{split}\n")
    with pytest.raises(UserError, match="cannot be part of a file's name"):
        Manifest.load(tmp_path / "m.csv")
