"""Classes and files of any name go through all that is done to a folder of images."""

import unicodedata
from pathlib import Path

import pytest

from data_prep.augment.copies import CopyPlan, write_copies
from data_prep.manifest.folder_tree import write_trees
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import check_images, scan_folder
from data_prep.manifest.splits import stratified_split
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.streams import TFRecordSource
from data_prep.sources.tfrecord_writer import write_shards
from tests.data_prep.image_files import pixels, write

DECOMPOSED = unicodedata.normalize("NFD", "석영")
NAMES = (
    "a[0]*?{b}", 'quo"te\'s', "new\nline", "com,ma;semi", "#1 50%", "-dash", "한글 😀", "=1+1",
    "~a", "$x$", "back\\slash", "<b>&amp;", DECOMPOSED,
)  # fmt: skip
CLASSES = tuple(sorted(unicodedata.normalize("NFC", name) for name in NAMES))


@pytest.fixture
def images(tmp_path: Path) -> Manifest:
    for place, name in enumerate(NAMES):
        for number in range(3):
            write(tmp_path / "set" / name / f"{name} {number}.png", pixels(3 * place + number))
    return scan_folder(tmp_path / "set")


def labels(manifest: Manifest) -> list[str]:
    return sorted(record.label for record in manifest.records)


def test_split_saved_and_loaded(images: Manifest, tmp_path: Path) -> None:
    split = stratified_split(images, {"train": 2 / 3, "test": 1 / 3}, seed=0)
    split.save(tmp_path / "run" / "m.csv")
    loaded = Manifest.load(tmp_path / "run" / "m.csv")
    assert loaded == split
    assert check_images(loaded).class_names == CLASSES


@pytest.mark.parametrize("mode", ["hardlink", "symlink", "copy"])
def test_as_a_tree(images: Manifest, tmp_path: Path, mode: str) -> None:
    split = stratified_split(images, {"train": 2 / 3, "test": 1 / 3}, seed=0)
    write_trees({"": split}, tmp_path / "tree", mode)  # type: ignore[arg-type]
    tree = scan_folder(tmp_path / "tree")
    assert tree.class_names == CLASSES
    assert labels(tree) == labels(images)


def test_augmented(images: Manifest, tmp_path: Path) -> None:
    split = stratified_split(images, {"train": 2 / 3, "test": 1 / 3}, seed=0)
    write_copies(split, tmp_path / "out", CopyPlan(("hflip",)), workers=1)
    again = Manifest.load(tmp_path / "out" / "manifest.csv")
    assert len(check_images(again)) == 13 * 5
    assert again.class_names == CLASSES
    assert labels(scan_folder(tmp_path / "out")) == labels(again)


@pytest.mark.slow
def test_read_and_as_shards(images: Manifest, tmp_path: Path) -> None:
    write_shards(images, tmp_path / "sh[ar]ds*", num_shards=2)
    shards, files = TFRecordSource(tmp_path / "sh[ar]ds*"), ManifestSource(images)
    assert shards.class_names == files.class_names == CLASSES
    read = [
        [
            (int(element["label"]), source.decode(element).numpy().tobytes())
            for element in source.elements(seed=0, shuffle=False, start=0, batch_size=1)
        ]
        for source in (shards, files)
    ]
    assert read[0] == read[1]
