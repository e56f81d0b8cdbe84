from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.manifest.leaks import check_leaks
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.scan import scan_folder
from finetune.compare.images import Division, divide_images, load_division, save_division
from finetune.compare.strategies import CompareSettings
from tests.images import make_folder


def divided(images: Manifest, **values: object) -> Division:
    settings = CompareSettings.from_values(
        {"image_dir": "x", "label_fractions": (0.2, 0.5, 1.0), **values}
    )
    return divide_images(images, settings, lambda what: lambda done, total: None)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return scan_folder(make_folder(tmp_path_factory.mktemp("images"), per_class=20, channels=1))


def test_the_test_set_is_sealed_from_pretraining_and_from_every_label_set(images: Manifest) -> None:
    d = divided(images)
    test = set(d.test.files())
    assert len(test) == 12
    assert not test & set(d.unlabeled.files())
    assert not any(record.label for record in d.unlabeled.records)
    for drawn in d.label_sets:
        assert not test & set(d.take(drawn.rows).files())
    assert not any(leak.shared for leak in check_leaks(d.images))


def test_labels_are_nested_and_folds_leave_out_different_parts(images: Manifest) -> None:
    d = divided(images, folds=3, seeds=2)
    assert len(d.label_sets) == 3 * 2 * 3
    for fold in (1, 2, 3):
        for seed in (0, 1):
            few, half, whole = (
                set(s.rows.tolist()) for s in d.label_sets if (s.fold, s.seed) == (fold, seed)
            )
            assert few < half < whole
            assert len(whole) == 32
            assert len({d.images.records[row].label for row in few}) == 3
    left_out = [
        set(range(60)) - set(s.rows.tolist()) - set(d.test_rows.tolist())
        for s in d.label_sets
        if s.fraction == 1 and s.seed == 0
    ]
    assert len(set.union(*left_out)) == sum(map(len, left_out)) == 48


def test_groups_are_on_one_side_and_known_splits_are_kept() -> None:
    records = [
        Record(f"{label}_{i}.png", label, group=f"core {label} {i // 4}")
        for label in "ab"
        for i in range(40)
    ]
    split = [
        Record(r.path, r.label, "test" if i % 10 == 0 else "validation", r.group)
        for i, r in enumerate(records)
    ]
    kept = divided(Manifest(tuple(split)))
    assert kept.test.files() == [f for f, r in zip(Manifest(tuple(split)).files(), split,
                                                   strict=True) if r.split == "test"]  # fmt: skip
    assert {r.split for r in kept.images.records} == {"train", "test"}


def test_too_few_labels_for_the_classes_are_left_out_and_said(images: Manifest) -> None:
    settings = CompareSettings.from_values({"image_dir": "x", "label_fractions": (0.01, 1.0)})
    d = divide_images(images, settings, lambda what: lambda done, total: None)
    assert d.fractions == (1.0,)
    assert any("0.01 of the labels was left out" in text for text in d.remarks)
    alone = CompareSettings.from_values({"image_dir": "x", "label_fractions": (0.01,)})
    with pytest.raises(UserError, match="Give larger ones"):
        divide_images(images, alone, lambda what: lambda done, total: None)


def test_numbers_a_class_stand_beside_shares(images: Manifest, tmp_path: Path) -> None:
    d = divided(images, labels_per_class=(3, 8, 16, 40), folds=3)
    sizes = {fraction: d.labels(fraction) for fraction in d.fractions}
    # 32 labels a fold; 8 a class are 24 of them; 16 a class and 40 are more than there are.
    assert list(sizes.values()) == [6, 9, 16, 24, 32]
    assert list(sizes) == [0.2, 0.2812, 0.5, 0.75, 1.0]
    few, more = ([s for s in d.label_sets if s.per_class == number] for number in (3, 8))
    for small, large in zip(few, more, strict=True):
        labels = [d.images.records[row].label for row in small.rows]
        assert {labels.count(name) for name in d.class_names} == {3}
        assert set(small.rows.tolist()) < set(large.rows.tolist())
    for number in (16, 40):
        said = f"{number} labels a class was left out: it is more than there are."
        assert said in d.remarks
    save_division(d, tmp_path)
    again = load_division(tmp_path)
    assert [s.per_class for s in again.label_sets] == [s.per_class for s in d.label_sets]
    assert [s.name for s in again.label_sets] == [s.name for s in d.label_sets]


def test_a_number_a_class_that_a_class_does_not_have_is_said(images: Manifest) -> None:
    first = next(r.label for r in images.records)
    few = [r for r in images.records if r.label == first][:8]
    uneven = images.subset([*few, *(r for r in images.records if r.label != first)])
    d = divided(uneven, labels_per_class=(2, 8))
    assert any(s.per_class == 2 for s in d.label_sets)
    assert any("8 labels a class was left out: class" in text for text in d.remarks)


def test_unlabeled_images_serve_self_supervision_alone(images: Manifest) -> None:
    blank = [Record(r.path, "" if i % 4 == 0 else r.label) for i, r in enumerate(images.records)]
    d = divided(images.subset(blank))
    assert sum(not r.label for r in d.images.records) == 15
    assert all(d.images.records[row].label for s in d.label_sets for row in s.rows)
    assert all(record.label for record in d.test.records)


def test_a_division_read_back_is_the_same(images: Manifest, tmp_path: Path) -> None:
    d = divided(images)
    save_division(d, tmp_path)
    again = load_division(tmp_path)
    assert again.images.files() == d.images.files()
    assert again.remarks == d.remarks
    for a, b in zip(again.label_sets, d.label_sets, strict=True):
        assert (a.fold, a.seed, a.fraction) == (b.fold, b.seed, b.fraction)
        np.testing.assert_array_equal(np.sort(a.rows), np.sort(b.rows))


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="two classes or more"):
        divided(Manifest(tuple(Record(f"{i}.png", "a") for i in range(9))))
