"""The same images as files, stacks, pages and tiles: every command must count and draw alike."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_prep.check.check import CheckResult, check
from data_prep.check.page import check_page
from data_prep.cli import label_fraction as fraction_command
from data_prep.cli import split as split_command
from data_prep.errors import UserError
from data_prep.manifest.folder_tree import tree_paths
from data_prep.manifest.groups import keep_together, torn_pairs, torn_units, with_group_column
from data_prep.manifest.identity import Picture
from data_prep.manifest.label_subsets import label_fraction, pool_subset
from data_prep.manifest.leaks import check_leaks
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.open_images import open_declared
from data_prep.manifest.read_options import Declaration
from data_prep.manifest.scan import check_images, list_folder
from data_prep.manifest.split_request import SplitRequest, divide
from data_prep.manifest.splits import FoldPlan, labels_per_class, stratified_split

SIDE, NUMBER = 16, 40
CLASSES = ("a", "b")

Pictures = dict[str, np.ndarray]  # class -> uint8 [n, SIDE, SIDE]


def noise(seed: int, number: int = NUMBER) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (number, SIDE, SIDE), np.uint8)


def single_images() -> Pictures:
    return {label: noise(seed) for seed, label in enumerate(CLASSES)}


def doubled_images() -> Pictures:
    """Image i and i + 20 are the same."""
    return {label: np.tile(noise(seed, 20), (2, 1, 1)) for seed, label in enumerate(CLASSES)}


def as_files(root: Path, pictures: Pictures) -> Manifest:
    for label, stack in pictures.items():
        (root / label).mkdir(parents=True)
        for i, image in enumerate(stack):
            Image.fromarray(image).save(root / label / f"{i:02d}.png")
    return open_declared(str(root), "", Declaration())


def as_npy(root: Path, pictures: Pictures) -> Manifest:
    for label, stack in pictures.items():
        (root / label).mkdir(parents=True)
        np.save(root / label / "stack.npy", stack)
    return open_declared(str(root), "", Declaration(axes="NHW"))


def as_tiff(root: Path, pictures: Pictures) -> Manifest:
    """Pages that are no group: axis N says that they are images of their own."""
    for label, stack in pictures.items():
        (root / label).mkdir(parents=True)
        with tifffile.TiffWriter(root / label / "pages.tif") as file:
            for image in stack:
                file.write(image, photometric="minisblack")
    return open_declared(str(root), "", Declaration(axes="NHW"))


def as_hdf5(root: Path, pictures: Pictures) -> Manifest:
    h5py = pytest.importorskip("h5py")
    for label, stack in pictures.items():
        (root / label).mkdir(parents=True)
        with h5py.File(root / label / "stack.h5", "w") as file:
            file["images"] = stack
            file["dark_field"] = stack // 2
    return open_declared(str(root), "", Declaration(axes="NHW", array_name="images"))


def as_arrays(root: Path, pictures: Pictures) -> Manifest:
    """Every image an array of one NPZ a class."""
    root.mkdir(parents=True)
    records = []
    for label, stack in pictures.items():
        names = [f"image_{i:02d}" for i in range(len(stack))]
        np.savez(root / f"{label}.npz", **dict(zip(names, stack, strict=True)))
        records += [Record(f"{label}.npz", label, reading=f"array={name}") for name in names]
    return check_images(Manifest(tuple(records), str(root)))


def as_tiles(root: Path, pictures: Pictures) -> Manifest:
    """Tiles side by side in one picture a class; x from 1000 on, so that texts sort as numbers."""
    records = []
    for label, stack in pictures.items():
        (root / label).mkdir(parents=True)
        wide = np.hstack([np.zeros((SIDE, 1000), np.uint8), *stack])
        Image.fromarray(wide).save(root / label / "wide.png")
        records += [
            Record(f"{label}/wide.png", label, tile=f"{1000 + SIDE * i},0,{SIDE},{SIDE}")
            for i in range(len(stack))
        ]
    return check_images(Manifest(tuple(records), str(root)))


Build = Callable[[Path, Pictures], Manifest]
PARTS = [as_npy, as_tiff, as_hdf5, as_arrays, as_tiles]
STACKS = PARTS[:4]  # tiles of one picture are never torn, so they have no split of their own
every_form = pytest.mark.parametrize("build", PARTS, ids=lambda build: build.__name__)
every_stack = pytest.mark.parametrize("build", STACKS, ids=lambda build: build.__name__)


def rows(manifest: Manifest, of: Manifest) -> list[int]:
    """Positions of a part's images in the whole."""
    place = {image: i for i, image in enumerate(of.images())}
    return [place[image] for image in manifest.images()]


@pytest.fixture
def both(tmp_path: Path) -> Callable[[Build, Pictures], tuple[Manifest, Manifest]]:
    def make(build: Build, pictures: Pictures) -> tuple[Manifest, Manifest]:
        return as_files(tmp_path / "files", pictures), build(tmp_path / "form", pictures)

    return make


@every_form
def test_labels_are_drawn_alike(both: Callable, build: Build) -> None:
    files, form = both(build, single_images())
    assert len(form) == len(files) == 80
    for keywords in ({"fraction": 0.1}, {"fraction": 0.33}, {"per_class": 2}):
        for unchosen in ("unlabelled", "left_out"):
            drawn = [label_fraction(m, 3, unchosen=unchosen, **keywords) for m in (files, form)]
            kept = [[i for i, r in zip(rows(d, m), d.records, strict=True) if r.label]
                    for d, m in zip(drawn, (files, form), strict=True)]  # fmt: skip
            assert kept[0] == kept[1]
            expected = 2 * keywords.get("per_class", 0) or round(80 * keywords["fraction"])
            assert len(kept[0]) == expected
            assert len(drawn[1]) == (80 if unchosen == "unlabelled" else expected)
    assert rows(labels_per_class(form, 5, 1), form) == rows(labels_per_class(files, 5, 1), files)


@every_stack
def test_splits_folds_and_subsets_are_drawn_alike(both: Callable, build: Build) -> None:
    files, form = both(build, single_images())
    request = SplitRequest({"train": 0.75, "test": 0.25}, seed=5, subsets={"train": 0.2})
    one, other = (divide(m, request)[0] for m in (files, form))
    assert rows(one, files) == rows(other, form)
    assert [r.split for r in one.records] == [r.split for r in other.records]
    assert Counter((r.label, r.split) for r in other.records) == {
        (label, split): n for label in CLASSES for split, n in (("train", 6), ("test", 10))
    }
    request = SplitRequest(folds=FoldPlan(4), seed=5)
    for one, other in zip(divide(files, request), divide(form, request), strict=True):
        assert [r.split for r in one.records] == [r.split for r in other.records]


@every_form
def test_a_subset_of_a_split_is_a_share_of_its_images(both: Callable, build: Build) -> None:
    files, form = both(build, single_images())
    drawn = [
        pool_subset(m.subset(replace(r, split="train") for r in m.records), "train", 0.2, 1)
        for m in (files, form)
    ]
    assert rows(drawn[0], files) == rows(drawn[1], form)
    assert Counter(r.label for r in drawn[1].records) == {"a": 8, "b": 8}


@every_stack
def test_equal_images_stay_on_one_side(both: Callable, build: Build) -> None:
    files, form = both(build, doubled_images())
    for near in ("ignore", "together"):
        found = [keep_together(m, near_duplicates=near) for m in (files, form)]
        (_, kept), (joined, kept_in_form) = found
        assert (kept.identical, kept.identical_parts) == (40, 0)
        assert (kept_in_form.identical, kept_in_form.identical_parts) == (0, 40)
        assert kept.units == kept_in_form.units == 40
        assert kept.pictures == kept_in_form.pictures == 80
        assert "40 parts of files with the pixels of another" in str(kept_in_form)
        assert "80 pictures in 40 units, the largest of 2" in str(kept_in_form)
        parted = [stratified_split(m, {"train": 0.5, "test": 0.5}, 2) for m, _ in found]
        for manifest in parted:
            splits = np.array([r.split for r in manifest.records]).reshape(2, 2, 20)
            assert (splits[:, 0] == splits[:, 1]).all()
            assert torn_units(manifest) == 0
        assert torn_pairs(parted[1], kept_in_form, joined) == 0
        assert not any(leak.shared for leak in check_leaks(parted[1]))


@every_stack
def test_torn_copies_are_counted(both: Callable, build: Build) -> None:
    _, form = both(build, doubled_images())
    joined, kept = keep_together(form)
    parted = joined.subset(
        replace(r, split="train" if i % 40 < 20 else "test", group="")
        for i, r in enumerate(joined.records)
    )
    assert torn_pairs(parted, kept, joined) == 40
    leak = next(leak for leak in check_leaks(parted) if leak.what == "image content")
    assert (leak.checked, leak.shared) == (40, 40)


def found(checked: CheckResult) -> dict[str, int]:
    return {finding.kind: finding.count for finding in checked.findings}


@every_form
def test_check_finds_the_copies_of_every_form(both: Callable, build: Build) -> None:
    files, form = both(build, doubled_images())
    for manifest in (files, form):
        kinds = found(check(manifest))
        assert kinds["identical_within"] == 40
        assert not any(kind.startswith("near") for kind in kinds), "each pair is told once"
    titles = [f.title for f in check(form).findings if f.kind == "identical_within"]
    assert titles == ["40 pairs of identical images within a class"]


@every_stack
def test_check_finds_copies_on_both_sides_of_a_split(both: Callable, build: Build) -> None:
    _, form = both(build, doubled_images())
    torn = form.subset(
        replace(r, split="train" if i % 40 < 20 else "test") for i, r in enumerate(form.records)
    )
    checked = check(torn)
    finding = next(f for f in checked.findings if f.kind == "identical_splits")
    assert (finding.severity, finding.count) == ("serious", 40)
    names = [record.name for record in form.records]
    assert finding.examples[0] == f"{names[0]} = {names[20]}"
    assert len(set(names)) == 80


@every_form
def test_check_finds_nothing_where_there_is_nothing(both: Callable, build: Build) -> None:
    files, form = both(build, single_images())
    copies = {"identical", "near", "picture", "group", "groups"}
    for manifest in (files, form):
        assert not any(kind.split("_")[0] in copies for kind in found(check(manifest)))


def test_an_image_is_found_again_in_another_form(tmp_path: Path) -> None:
    """The same picture as a file, in a stack and as a tile: they look alike."""
    pictures = {"a": noise(0, 3)}
    forms = [
        build(tmp_path / build.__name__, pictures)
        for build in (as_files, as_npy, as_tiff, as_tiles)
    ]
    together = Manifest(
        tuple(
            replace(record, path=file)
            for form in forms
            for record, file in zip(form.records, form.files(), strict=True)
        )
    )
    kinds = found(check(together))
    # Each part has the values of the first; a file looks like all three of them.
    assert (kinds["identical_within"], kinds["near_within"]) == (3 * 2, 3 * 3)
    _, kept = keep_together(together, near_duplicates="together")
    # Tiles of one picture are one unit, and so is all that looks like one of them.
    assert (kept.units, kept.largest) == (1, 10)


def test_empty_tiles_do_not_chain_pictures(tmp_path: Path) -> None:
    records = []
    for number in range(4):
        picture = np.hstack([noise(number, 1)[0], np.zeros((SIDE, SIDE), np.uint8)])
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        records += [Record(f"{number}.png", tile=f"{x},0,{SIDE},{SIDE}") for x in (0, SIDE)]
    _, kept = keep_together(Manifest(tuple(records), str(tmp_path)), near_duplicates="mirrored")
    assert (kept.units, kept.identical_parts, len(kept.near_pairs)) == (4, 0, 0)


def test_pages_of_a_tiff_are_a_group_and_images_of_a_stack_are_not(tmp_path: Path) -> None:
    as_tiff(tmp_path, {"a": noise(0, 3)})
    pages = open_declared(str(tmp_path), "", Declaration(page="all"))
    assert {record.group for record in pages.records} == {"a/pages.tif"}
    images = open_declared(str(tmp_path), "", Declaration(axes="NHW"))
    assert {record.group for record in images.records} == {""}
    assert pages.images() == images.images()


def test_a_page_that_is_not_named_is_the_first(tmp_path: Path) -> None:
    records = [Record("s.tif"), Record("s.tif", reading="page=0;intensity=sqrt")]
    images = Manifest(tuple(records)).images()
    assert images[0] == images[1]
    Manifest(tuple(records), str(tmp_path)).save(tmp_path / "m.csv")
    with pytest.raises(UserError, match=r"s\.tif, page 0 is listed twice"):
        Manifest.load(tmp_path / "m.csv")


def test_all_pages_as_channels_are_one_picture_with_each_page() -> None:
    readings = ["page=stack", "page=3", "page=5"]
    manifest = Manifest(tuple(Record("s.tif", reading=reading) for reading in readings))
    assert len(set(manifest.images())) == 3
    assert len(set(manifest.pictures())) == 1
    arrays = Manifest(tuple(Record("s.h5", reading=text) for text in ("", "array=/x", "array=y")))
    assert len(set(arrays.pictures())) == 1
    named = arrays.subset(arrays.records[1:])
    assert [p[1:] for p in named.pictures()] == [("x", 0), ("y", 0)]
    assert isinstance(named.pictures()[0], Picture)


def test_order_of_the_records_does_not_matter(tmp_path: Path) -> None:
    form = as_npy(tmp_path, doubled_images())
    order = np.random.default_rng(0).permutation(len(form))
    mixed = form.subset(form.records[i] for i in order)
    for ready in (lambda m: m, lambda m: keep_together(m)[0]):
        one, other = (
            stratified_split(ready(m), {"train": 0.5, "test": 0.5}, 2) for m in (form, mixed)
        )
        assert [one.records[i].split for i in order] == [r.split for r in other.records]
        parts = (label_fraction(m, 1, fraction=0.1, split="") for m in (form, mixed))
        assert len({frozenset(r.name for r in part.records if r.label) for part in parts}) == 1


def test_a_column_of_the_csv_belongs_to_image_or_file(tmp_path: Path) -> None:
    form = as_npy(tmp_path, {"a": noise(0, 4)})
    lines = [f"a/stack.npy,page={page};axes=NHW,core {page // 2}" for page in range(4)]
    (tmp_path / "m.csv").write_text("path,reading,core\n" + "\n".join(lines) + "\n")
    grouped = with_group_column(form, "core", str(tmp_path / "m.csv"))
    assert [r.group for r in grouped.records] == ["core 0", "core 0", "core 1", "core 1"]
    (tmp_path / "w.csv").write_text("path,core\na/stack.npy,core 7\n")
    grouped = with_group_column(form, "core", str(tmp_path / "w.csv"))
    assert {r.group for r in grouped.records} == {"core 7"}


def test_a_stack_has_no_folder_tree(tmp_path: Path) -> None:
    form = as_npy(tmp_path, {"a": noise(0, 2)})
    with pytest.raises(UserError, match="parts of files"):
        tree_paths(form)


@every_stack
def test_the_commands_count_images(
    both: Callable, build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, form = both(build, doubled_images())
    form.save(tmp_path / "all.csv")
    arguments = [f"--manifest={tmp_path / 'all.csv'}", "--ratios=train:0.5,test:0.5"]
    subset = [*arguments, "--subset=train:0.2", f"--output={tmp_path / 'split.csv'}"]
    assert split_command.main(subset) == 0
    assert "40 parts of files with the pixels of another" in capsys.readouterr().out
    parted = Manifest.load(tmp_path / "split.csv")
    counts = Counter((r.label, r.split) for r in parted.records)
    assert counts == {("a", "train"): 4, ("b", "train"): 4, ("a", "test"): 20, ("b", "test"): 20}
    arguments = [f"--manifest={tmp_path / 'all.csv'}", "--fraction=0.1", "--unchosen=left_out"]
    few = [*arguments, f"--output={tmp_path / 'few.csv'}"]
    assert fraction_command.main(few) == 0
    assert len(Manifest.load(tmp_path / "few.csv")) == 8


def test_commands_without_flags_for_reading_say_where_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_npy(tmp_path / "set", {"a": noise(0, 3)})
    said = "These are flags of simclr-manifest"
    arguments = [f"--image_dir={tmp_path / 'set'}", "--fraction=0.5", f"--output={tmp_path}/o.csv"]
    assert fraction_command.main(arguments) == 1
    assert said in capsys.readouterr().err
    (finding,) = (
        f for f in check(list_folder(tmp_path / "set")).findings if f.kind == "unreadable"
    )
    assert said in finding.text
    (tmp_path / "set" / "a" / "stack.npy").write_bytes(b"")
    (finding,) = (
        f for f in check(list_folder(tmp_path / "set")).findings if f.kind == "unreadable"
    )
    assert finding.text.endswith("--skip_unreadable.")


def test_the_page_of_many_classes_shows_the_first_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = check(as_npy(tmp_path, {"a": noise(0, 2), "b": noise(1, 2)}))
    titles = [section.title for section in check_page(checked, "t").sections]
    assert titles[-2:] == ["Images of a", "Images of b"]
    monkeypatch.setattr("data_prep.check.page._MOST_SHEETS", 1)
    *_, shown, rest = check_page(checked, "t").sections
    assert [picture.caption for picture in shown.gallery] == [
        "stack.npy, page 0",
        "stack.npy, page 1",
    ]
    assert rest.text == ("Images are shown of the first 1 of 2 classes.",)
