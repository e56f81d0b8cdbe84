import errno
import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from data_prep.manifest import folder_tree
from data_prep.manifest.folder_tree import tree_paths, write_trees
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.scan import scan_folder
from data_prep.manifest.splits import stratified_split
from tests.data_prep.image_files import write_class_folders


def split_images(root: Path) -> Manifest:
    manifest = scan_folder(write_class_folders(root, {"a": 6, "b": 4}))
    return stratified_split(manifest, {"train": 0.5, "test": 0.5}, 0)


@pytest.mark.parametrize("mode", ["hardlink", "symlink", "copy"])
def test_the_tree_holds_every_image_once_where_the_manifest_says(tmp_path: Path, mode) -> None:
    manifest = split_images(tmp_path / "images")
    out = tmp_path / "deep" / "tree"
    calls: list[tuple[int, int]] = []
    write_trees({"": manifest}, out, mode, lambda done, total: calls.append((done, total)))
    assert calls[-1] == (10, 10)
    scanned = scan_folder(out)
    assert sorted((r.split, r.label, os.path.basename(r.path)) for r in scanned.records) == sorted(
        (r.split, r.label, os.path.basename(r.path)) for r in manifest.records
    )
    for record, file in zip(manifest.records, manifest.files(), strict=True):
        copy = out / record.split / record.label / os.path.basename(file)
        assert copy.read_bytes() == Path(file).read_bytes()
        assert copy.is_symlink() == (mode == "symlink")
        assert os.path.samefile(copy, file) == (mode != "copy")
    assert (out.stat().st_mode & 0o777) == 0o755
    assert os.listdir(out.parent) == ["tree"]


def test_trees_of_several_manifests_lie_side_by_side(tmp_path: Path) -> None:
    manifest = split_images(tmp_path / "images")
    write_trees({"fold_1": manifest, "fold_2": manifest.split("test")}, tmp_path / "t", "copy")
    assert len(scan_folder(tmp_path / "t" / "fold_1")) == 10
    assert scan_folder(tmp_path / "t" / "fold_2").splits == ("test",)


def test_names_that_meet_are_kept_apart_and_the_rest_stay() -> None:
    paths = ["z/x.png", "a/x.png", "b/X.PNG", "c/x~2.png", "d/y.png", "e/x.png"]
    records = [Record(path, "k", "train") for path in paths] + [Record("f/x.png", "k", "test")]
    places = tree_paths(Manifest(tuple(records)))
    assert places == [
        "train/k/x~5.png",
        "train/k/x.png",
        "train/k/X~3.PNG",
        "train/k/x~2.png",
        "train/k/y.png",
        "train/k/x~4.png",
        "test/k/x.png",
    ]


@settings(max_examples=80, deadline=None)
@given(
    names=st.lists(
        st.tuples(
            st.sampled_from("pqrs"), st.sampled_from(["x.png", "X.png", "x~2.png", "x~3.png"])
        ),
        unique=True,
        min_size=1,
    ),
    shuffle=st.randoms(),
)
def test_no_two_places_are_the_same_whatever_the_order(names, shuffle) -> None:
    records = [Record(f"{folder}/{name}", "k") for folder, name in names]
    places = dict(zip(records, tree_paths(Manifest(tuple(records))), strict=True))
    assert len({place.casefold() for place in places.values()}) == len(records)
    once = [name for _, name in names]
    for record, place in places.items():
        name = os.path.basename(record.path)
        if [other.casefold() for other in once].count(name.casefold()) == 1:
            assert place == f"k/{name}"
    shuffle.shuffle(records)
    assert dict(zip(records, tree_paths(Manifest(tuple(records))), strict=True)) == places


def test_images_without_label_or_split_lie_higher() -> None:
    records = (Record("u/1.png", split="train"), Record("u/2.png", "a"), Record("u/3.png"))
    assert tree_paths(Manifest(records)) == ["train/1.png", "a/2.png", "3.png"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (Record("a.png", "x/y", "train"), "class 'x/y' cannot be the name of a folder"),
        (Record("a.png", "..", "train"), r"class '\.\.' cannot be"),
        (Record("a.png", "k", ".hidden"), r"split '\.hidden' cannot be"),
        (Record("a.png", "val", "validation"), "'val' has the name of a split"),
        (Record("a.png", "k", "train", tile="0,0,4,4"), "cannot hold parts of files"),
    ],
)
def test_manifests_that_are_no_tree(record: Record, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        write_trees({"": Manifest((record,))}, tmp_path / "t", "copy")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_where_links_cannot_be_or_a_file_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = split_images(tmp_path / "images")

    def other_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(folder_tree.os, "link", other_disk)
    with pytest.raises(UserError, match="use --tree_mode=symlink or copy"):
        write_trees({"": manifest}, tmp_path / "t", "hardlink")
    os.unlink(manifest.files()[-1])
    with pytest.raises(FileNotFoundError):
        write_trees({"": manifest}, tmp_path / "t", "copy")
    assert os.listdir(tmp_path) == ["images"]


def test_what_is_there_is_never_touched(tmp_path: Path) -> None:
    manifest = split_images(tmp_path / "images")
    with pytest.raises(UserError, match="not empty"):
        write_trees({"": manifest}, tmp_path / "images", "copy")
    assert sorted(os.listdir(tmp_path / "images")) == ["a", "b"]


def test_readings_that_a_tree_cannot_hold_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = split_images(tmp_path / "images")
    write_trees({"": manifest}, tmp_path / "plain", "copy")
    assert caplog.text == ""
    read = manifest.subset(replace(record, reading="page=2") for record in manifest.records)
    write_trees({"": read}, tmp_path / "read", "copy")
    assert "how files are to be read stands in the manifest only" in caplog.text


@pytest.mark.parametrize(
    "record",
    [
        Record("a.png", label="../out"), Record("a.png", label=".."), Record("a.png", split="../x"),
        Record("a/..", label="x"), Record("/", label="x"),
    ],
)  # fmt: skip
def test_names_of_a_manifest_cannot_lead_out_of_the_tree(tmp_path: Path, record: Record) -> None:
    with pytest.raises(UserError, match=r"cannot be the name of a folder|no file that a tree"):
        write_trees({"": Manifest((record,), str(tmp_path))}, tmp_path / "out", "symlink")
    assert not list(tmp_path.iterdir())


def test_files_outside_the_root_keep_their_name_alone(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    manifest = Manifest((Record("../a.png", label="x"),), str(tmp_path / "deep"))
    write_trees({"": manifest}, tmp_path / "out", "copy")
    assert [p.relative_to(tmp_path).as_posix() for p in (tmp_path / "out").rglob("*.png")] == [
        "out/x/a.png"
    ]


def test_one_name_in_two_forms_does_not_overwrite(tmp_path: Path) -> None:
    names = ("\u00e9.png", "e\u0301.png")
    manifest = Manifest(tuple(Record(f"{i}/{name}", "a") for i, name in enumerate(names)))
    places = tree_paths(manifest)
    assert len({unicodedata.normalize("NFC", place) for place in places}) == 2


def test_classes_that_a_disk_takes_for_one_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(name.encode())
    records = (Record("1.png", "Quartz"), Record("2.png", "quartz"))
    manifest = Manifest(records, str(tmp_path))
    write_trees({"": manifest}, tmp_path / "apart", "copy")
    assert scan_names(tmp_path / "apart") == ["Quartz/1.png", "quartz/2.png"]
    monkeypatch.setattr(os.path, "samefile", lambda one, other: True)
    with pytest.raises(UserError, match="takes the folders 'Quartz' and 'quartz' for one"):
        write_trees({"": manifest}, tmp_path / "one", "copy")
    assert not (tmp_path / "one").exists()


def scan_names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
