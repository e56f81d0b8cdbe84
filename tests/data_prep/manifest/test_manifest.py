import csv
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record, canonical_split


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
    with pytest.raises(UserError, match="could not be written: disk full"):
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
        ("picture,label\na.png,x\n", "needs a column 'path'"),
        ("", "needs a column 'path'"),
        ("path,label\n", "lists no images"),
        ("path,label\na.png,x\n,y\n", "line 3: the path is empty"),
        ("path,split\na.png,train\nb.png,\n", "line 3: 1 of 2 images have no split"),
        ("path,split\na.png,train\n./a.png,test\n", "line 3: .* in two splits, train and test"),
        ("path,label,Label\na.png,x,y\n", "line 1: there are 2 columns 'label'"),
        ("path\nC:\\set\\a.png\n", "line 2: C:.* Windows machine; give .* --image_dir=FOLDER"),
        ("path\n\\\\server\\a.png\n", "line 2: .* Windows machine"),
        ("path,label\na.png,x\na.png,y\n", "line 3: .* listed twice, first in line 2"),
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


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


NAMES = ("b/1.png", "a/1.png", "a/2.png", "x.png", "depth/1.png")


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A manifest in the folder of a run, the images in another, both in `here`."""
    images(tmp_path / "here" / "images", *NAMES)
    manifest = example(str(tmp_path / "here" / "images"))
    manifest.save(tmp_path / "here" / "runs" / "one" / "manifest.csv")
    return tmp_path


def test_manifest_records_its_root(moved: Path) -> None:
    with open(moved / "here/runs/one/manifest.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == list(NAMES[:4])
    assert rows[1]["target"] == "depth/1.png"
    assert {row["root"] for row in rows} == {str(moved / "here" / "images")}
    assert {row["relative_root"] for row in rows} == {"../../images"}


def check_moved(csv_file: Path, folder: Path, image_dir: Path | str = "") -> None:
    loaded = Manifest.load(csv_file, image_dir)
    assert loaded.files() == [str(folder / name) for name in NAMES[:4]]
    assert loaded.target_files()[1] == str(folder / "depth/1.png")
    assert loaded.sha256() == example("/data/one").sha256()


def test_moved_together(moved: Path) -> None:
    (moved / "here").rename(moved / "there")
    check_moved(moved / "there/runs/one/manifest.csv", moved / "there" / "images")


def test_a_copy_of_both_reads_the_copied_images(moved: Path) -> None:
    shutil.copytree(moved / "here", moved / "there")
    check_moved(moved / "there/runs/one/manifest.csv", moved / "there" / "images")


def test_moved_alone(moved: Path) -> None:
    (moved / "archive").mkdir()
    (moved / "here/runs/one").rename(moved / "archive" / "two")
    check_moved(moved / "archive/two/manifest.csv", moved / "here" / "images")


@pytest.mark.parametrize("given", ["elsewhere/set", "elsewhere"])
def test_images_elsewhere_are_found_below_a_given_folder(moved: Path, given: str) -> None:
    place = moved / "elsewhere" / "set" / ("" if given.endswith("set") else "images")
    place.parent.mkdir(parents=True)
    (moved / "here/images").rename(place)
    (moved / "here/runs").rename(moved / "runs")
    top = place if given.endswith("set") else place.parent
    check_moved(moved / "runs/one/manifest.csv", place, top)


def test_a_folder_without_the_images_is_refused(moved: Path) -> None:
    with pytest.raises(UserError, match=f"--image_dir={moved}.*does not hold .*b/1.png"):
        Manifest.load(moved / "here/runs/one/manifest.csv", moved / "here" / "runs")


@pytest.mark.parametrize("base", ["/old/place", "C:\\old\\place"])
def test_absolute_paths_of_before_are_found_below_a_given_folder(tmp_path: Path, base: str) -> None:
    images(tmp_path / "new", *NAMES)
    separator = "\\" if "\\" in base else "/"
    path = [separator.join((base, *name.split("/"))) for name in NAMES]
    splits = ("validation,,,", "train,g1,2," + path[4], "test,,,", "extra,,,")
    labels = ("b", "a", "a", "")
    lines = [f"{p},{c},{s}" for p, c, s in zip(path, labels, splits, strict=False)]
    text = "path,label,split,group,case,target\n" + "\n".join(lines) + "\n"
    (tmp_path / "m.csv").write_text(text)
    check_moved(tmp_path / "m.csv", tmp_path / "new", tmp_path / "new")


def test_images_gone_keep_the_recorded_place(moved: Path) -> None:
    shutil.rmtree(moved / "here/images")
    loaded = Manifest.load(moved / "here/runs/one/manifest.csv")
    assert loaded.files()[0] == str(moved / "here/images/b/1.png")


def test_two_manifests_put_into_one_keep_their_roots(tmp_path: Path) -> None:
    images(tmp_path / "one", "a/1.png")
    images(tmp_path / "two", "a/1.png")
    parts = []
    for name in ("one", "two"):
        Manifest((Record("a/1.png", "a"),), str(tmp_path / name)).save(tmp_path / "m" / name)
        parts.append((tmp_path / "m" / name).read_text().splitlines())
    (tmp_path / "m/both.csv").write_text("\n".join([*parts[0], parts[1][1]]) + "\n")
    files = Manifest.load(tmp_path / "m/both.csv").files()
    assert files == [str(tmp_path / name / "a/1.png") for name in ("one", "two")]


KOREAN = "석영"
DECOMPOSED = unicodedata.normalize("NFD", KOREAN)


def test_names_come_in_in_one_form_and_files_as_they_are_on_disk(tmp_path: Path) -> None:
    images(tmp_path, f"{DECOMPOSED}/a.png", f"{KOREAN}/b.png")
    text = (
        f"path,label,group\n{KOREAN}\\a.png,{DECOMPOSED},\u00a0g\n{KOREAN}/b.png,{KOREAN}\u200b,g\n"
    )
    loaded = load(tmp_path, text)
    assert loaded.class_names == (KOREAN,)
    assert [record.group for record in loaded.records] == ["g", "g"]
    assert [record.path for record in loaded.records] == [f"{DECOMPOSED}/a.png", f"{KOREAN}/b.png"]


def test_one_file_in_two_forms_is_listed_twice(tmp_path: Path) -> None:
    images(tmp_path, f"{DECOMPOSED}.png")
    with pytest.raises(UserError, match=r"line 3: .* listed twice"):
        load(tmp_path, f"path\n{DECOMPOSED}.png\n{KOREAN}.png\n")


def test_labels_are_found_among_names_of_another_form() -> None:
    manifest = Manifest((Record("a.png", KOREAN), Record("b.png", "b")))
    assert manifest.label_indices(["b", DECOMPOSED]).tolist() == [1, 0]


def test_the_hash_does_not_depend_on_the_form_of_file_names() -> None:
    one, other = (Manifest((Record(f"{name}.png", "a"),), "/set") for name in (KOREAN, DECOMPOSED))
    assert one.sha256() == other.sha256()


def test_formulas_are_dead_in_the_file_and_come_back(tmp_path: Path) -> None:
    label = '=HYPERLINK("http://x")'
    images(tmp_path, f"{label.replace('/', '')}/-a.png", "@b.png")
    names = (f"{label.replace('/', '')}/-a.png", "@b.png")
    manifest = Manifest(tuple(Record(name, label) for name in names), str(tmp_path))
    manifest.save(tmp_path / "m.csv")
    with open(tmp_path / "m.csv", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@")]
    assert Manifest.load(tmp_path / "m.csv") == manifest
