"""Which images a run trains on and is scored on."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.read_options import Declaration
from data_prep.manifest.scan import scan_folder
from finetune.config import LabeledImages
from finetune.data import LabeledData, open_labeled
from finetune.epoch_scores import split_scores
from tests.images import make_split_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("set"), train=10, held_out=4, size=8)


def opened(folder: Path, sampling: str = "natural", **values: Any) -> LabeledData:
    return open_labeled(LabeledImages(image_dir=str(folder), **values), Declaration(), sampling)


def listed(folder: Path, target: Path, **changes: Any) -> LabeledData:
    """The images of a folder as a manifest whose records are changed by a function each."""
    found = scan_folder(folder)
    records = []
    for record in found.records:
        new = {name: change(record) for name, change in changes.items()}
        records.append(replace(record, **new))
    Manifest(tuple(records), found.root).save(target)
    return open_labeled(LabeledImages(manifest=str(target)), Declaration())


def test_a_share_of_the_labels_is_nested_and_leaves_the_other_splits(folder: Path) -> None:
    parts = {share: opened(folder, label_fraction=share) for share in (0.1, 0.3, 1.0)}
    names = {s: {r.path for r in d.manifest.split("train").records} for s, d in parts.items()}
    assert [len(names[s]) for s in (0.1, 0.3, 1.0)] == [3, 9, 30]
    assert names[0.1] < names[0.3] < names[1.0]
    assert {len(d.manifest.split("test")) for d in parts.values()} == {12}
    assert Counter(r.label for r in parts[0.1].manifest.split("train").records) == dict.fromkeys(
        ("checks", "dots", "stripes"), 1
    )
    other = opened(folder, label_fraction=0.3, label_seed=1)
    assert {r.path for r in other.manifest.split("train").records} != names[0.3]


def test_images_of_a_stack_are_drawn_one_by_one(tmp_path: Path) -> None:
    records = []
    for seed, label in enumerate("ab"):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 8, 8), np.uint8)
        np.save(tmp_path / f"{label}.npy", pixels)
        records += [
            Record(
                f"{label}.npy", label, "test" if i >= 30 else "train", reading=f"page={i};axes=NHW"
            )
            for i in range(40)
        ]
    Manifest(tuple(records), str(tmp_path)).save(tmp_path / "m.csv")
    settings = LabeledImages(manifest=str(tmp_path / "m.csv"), labels_per_class=2)
    data = open_labeled(settings, Declaration())
    drawn = Counter((r.label, r.split) for r in data.manifest.records)
    assert drawn == {("a", "train"): 2, ("b", "train"): 2, ("a", "test"): 10, ("b", "test"): 10}
    assert data.train.num_examples == 4


def test_training_images_without_a_label_are_left_out_and_held_out_ones_kept(
    folder: Path, tmp_path: Path
) -> None:
    data = listed(
        folder, tmp_path / "m.csv", label=lambda r: "" if r.path.endswith("000.png") else r.label
    )
    assert data.train.num_examples == 27
    assert (data.train.labels() >= 0).all()
    assert data.sources["test"].num_examples == 12
    assert Counter((data.sources["test"].labels() < 0).tolist()) == {False: 9, True: 3}
    assert data.has_labels("test")
    assert not data.has_labels("fourth")


def test_what_cannot_be_trained_on_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training image has a label"):
        listed(folder, tmp_path / "a.csv", label=lambda r: "")
    with pytest.raises(UserError, match="only the class 'all'"):
        listed(folder, tmp_path / "b.csv", label=lambda r: "all")
    with pytest.raises(UserError, match="--train_split=fit"):
        opened(folder, train_split="fit")
    with pytest.raises(UserError, match="--image_dir"):
        open_labeled(LabeledImages(), Declaration())


def test_a_class_without_training_images_is_told_of(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def label(record: Any) -> str:
        return "" if record.split == "train" and record.label == "dots" else record.label

    data = listed(folder, tmp_path / "m.csv", label=label)
    assert data.class_names == ("checks", "dots", "stripes")
    assert "no training image of dots" in caplog.text


def test_balanced_sampling_concerns_the_training_images_alone(folder: Path) -> None:
    data = opened(folder, "balanced")
    assert data.train.sampler is not None
    assert data.sources["validation"].sampler is None


def test_the_roc_area_is_of_probabilities_not_of_decisions() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    logits = np.stack([np.zeros(60), labels - 1.5 + rng.normal(size=60)], axis=1)
    scores = 1 / (1 + np.exp(-logits[:, 1]))
    found = split_scores(logits, labels)["roc_auc"]
    assert found == pytest.approx(roc_auc_score(labels, scores))
    assert found > roc_auc_score(labels, scores > 0.5) + 0.05
