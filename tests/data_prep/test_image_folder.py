"""Our folders and those of `tfds.folder_dataset.ImageFolder` are the same folders."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep.manifest.folder_tree import write_trees
from data_prep.manifest.scan import scan_folder
from data_prep.manifest.splits import stratified_split
from data_prep.sources.manifest_source import ManifestSource
from tests.data_prep.image_files import pixels, write, write_class_folders

Found = dict[str, list[tuple[str, str, bytes]]]


def by_tfds(folder: Path) -> Found:
    """Split -> sorted (file name, class, pixels) as TFDS reads the folder."""
    builder = tfds.folder_dataset.ImageFolder(str(folder))
    names = builder.info.features["label"].names
    found = defaultdict(list)
    for split in builder.info.splits:
        for example in tfds.as_numpy(builder.as_dataset(split=split)):
            file = Path(example["image/filename"].decode()).name
            found[split].append((file, names[example["label"]], example["image"].tobytes()))
    return {split: sorted(examples) for split, examples in found.items()}


def by_us(folder: Path) -> Found:
    """The same, read by this package."""
    manifest = scan_folder(folder)
    found: Found = {}
    for split in manifest.splits:
        part = manifest.split(split)
        # TFDS gives every image three channels.
        source = ManifestSource(part, manifest.class_names, channels=3, cache="false")
        found[split] = []
        for element in source.elements(seed=0, shuffle=False, start=0, batch_size=1):
            file = Path(part.records[int(element["index"])].path).name
            label = source.class_names[int(element["label"])]
            found[split].append((file, label, source.decode(element).numpy().tobytes()))
    return {split: sorted(examples) for split, examples in found.items()}


def test_a_tree_for_tfds_is_read_alike(tmp_path: Path) -> None:
    seed = 0
    for split, number in (("train", 4), ("validation", 2), ("test", 1)):
        for label in ("granite", "gneiss", "basalt"):
            for image in range(number):
                seed += 1
                array = pixels(seed, channels=1 if image == 1 else 3)
                write(tmp_path / split / label / f"{seed:03d}.png", array)
    ours = by_us(tmp_path)
    assert {split: len(examples) for split, examples in ours.items()} == {
        "train": 12,
        "validation": 6,
        "test": 3,
    }
    assert ours == by_tfds(tmp_path)


def test_jpeg_files_differ_by_rounding_at_most(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a" / "1.jpg", pixels(1, 40, 56), quality=90)
    ((_, label, ours),) = by_us(tmp_path)["train"]
    ((_, theirs_label, theirs),) = by_tfds(tmp_path)["train"]
    assert label == theirs_label == "a"
    difference = np.frombuffer(ours, np.uint8).astype(int) - np.frombuffer(theirs, np.uint8)
    assert np.abs(difference).max() <= 6  # TFDS takes the faster, less exact inverse DCT


@pytest.mark.parametrize("mode", ["hardlink", "symlink", "copy"])
def test_tfds_reads_the_trees_that_splitting_writes(tmp_path: Path, mode: str) -> None:
    write_class_folders(tmp_path / "images", {"a": 8, "b": 12}, channels=3)
    ratios = {"train": 0.5, "validation": 0.25, "test": 0.25}
    manifest = stratified_split(scan_folder(tmp_path / "images"), ratios, seed=0)
    write_trees({"": manifest}, tmp_path / "tree", mode)
    found = by_tfds(tmp_path / "tree")
    assert found == by_us(tmp_path / "tree")
    assert {split: len(examples) for split, examples in found.items()} == {
        "train": 10,
        "validation": 5,
        "test": 5,
    }
    known = {(r.split, r.label, Path(r.path).name) for r in manifest.records}
    assert {(s, label, file) for s, rows in found.items() for file, label, _ in rows} == known
