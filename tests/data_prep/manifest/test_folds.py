import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import storage
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.splits import FoldPlan, fold_names, make_folds, save_folds
from tests.data_prep.manifest.test_splits import manifest_of, members

seeds = st.integers(0, 2**31)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(8, 40), min_size=1, max_size=4),
    count=st.integers(2, 6),
    seed=seeds,
)
def test_held_out_parts_are_disjoint_and_cover_everything(
    sizes: list[int], count: int, seed: int
) -> None:
    manifest = manifest_of(sizes)
    made = make_folds(manifest, FoldPlan(count), seed)
    assert len(made) == count
    times_held_out = Counter(r.path for fold in made for r in fold.records if r.split == "test")
    assert times_held_out == dict.fromkeys((r.path for r in manifest.records), 1)
    for fold in made:
        assert [r.path for r in fold.records] == [r.path for r in manifest.records]
        assert {r.split for r in fold.records} == {"train", "test"}
        per_class = Counter(r.label for r in fold.split("test").records)
        for label, size in enumerate(sizes):
            assert abs(per_class[f"c{label}"] - size / count) < 1


def test_four_folds_with_a_sealed_tenth_are_67_22_10() -> None:
    manifest = manifest_of([200, 400])
    made = make_folds(manifest, FoldPlan(4, "validation", sealed={"test": 0.1}), 5)
    for fold in made:
        assert Counter(r.split for r in fold.records) == {
            "train": 405,
            "validation": 135,
            "test": 60,
        }
    sealed = [members(fold)["test"] for fold in made]
    assert all(part == sealed[0] for part in sealed)
    held_out = [members(fold)["validation"] for fold in made]
    assert len(set().union(*held_out)) == sum(map(len, held_out)) == 540
    assert not sealed[0] & set().union(*held_out)


def test_three_folds_train_on_another_tenth_each() -> None:
    plan = FoldPlan(3, "train", share=0.1, rest={"validation": 0.25, "test": 0.75})
    made = make_folds(manifest_of([100, 300]), plan, 2)
    trained = [members(fold)["train"] for fold in made]
    assert [len(part) for part in trained] == [40] * 3
    assert len(set().union(*trained)) == 120
    for fold in made:
        count = Counter((r.label, r.split) for r in fold.records)
        assert (count["c0", "train"], count["c1", "train"]) == (10, 30)
        assert Counter(r.split for r in fold.records)["validation"] == 90


def test_validation_is_cut_from_the_training_part_by_class() -> None:
    made = make_folds(manifest_of([60, 90]), FoldPlan(3, rest={"train": 0.8, "validation": 0.2}), 0)
    for fold in made:
        assert Counter((r.label, r.split) for r in fold.records) == {
            ("c0", "test"): 20,
            ("c0", "validation"): 8,
            ("c0", "train"): 32,
            ("c1", "test"): 30,
            ("c1", "validation"): 12,
            ("c1", "train"): 48,
        }
    assert members(made[0])["validation"] != members(made[1])["validation"]


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=seeds)
def test_groups_and_tiles_are_never_torn(data: st.DataObject, seed: int) -> None:
    names = data.draw(st.lists(st.integers(0, 9), min_size=40, max_size=60))
    records = tuple(
        Record(f"{i // 2}.png", f"c{i % 3}", group=f"g{name}", tile=f"{i % 2},0,1,1")
        for i, name in enumerate(names)
    )
    manifest = Manifest(records)
    plan = FoldPlan(2, sealed={"final": 0.2}, rest={"train": 0.7, "validation": 0.3})
    try:
        made = make_folds(manifest, plan, seed)
    except UserError:
        return  # too few groups
    for fold in made:
        for key in ("path", "group"):
            homes = {(getattr(r, key), r.split) for r in fold.records}
            assert len(homes) == len({getattr(r, key) for r in records})


def test_folds_depend_on_the_seed_alone() -> None:
    manifest = manifest_of([30, 30])
    assert make_folds(manifest, FoldPlan(3), 1) == make_folds(manifest, FoldPlan(3), 1)
    assert make_folds(manifest, FoldPlan(3), 1) != make_folds(manifest, FoldPlan(3), 2)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (FoldPlan(1), "must be 2 or more"),
        (FoldPlan(3, "train"), "'train' has two parts"),
        (FoldPlan(3, sealed={"test": 0.1}), "'test' has two parts"),
        (FoldPlan(3, sealed={"x": 1.0}), "below 1 in all"),
        (FoldPlan(3, sealed={"x": 0.0}), "shares above 0"),
        (FoldPlan(4, share=0.3), "need 1.2, and there is 1"),
        (FoldPlan(4, share=-0.1), "need -0.4"),
        (FoldPlan(3, rest={"train": 0.5}), "must add up to 1"),
        (FoldPlan(30), "20 images are too few for the split 'fold 21'"),
    ],
)
def test_impossible_plans_are_refused(plan: FoldPlan, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_folds(manifest_of([20]), plan, 0)


def test_names_sort_like_numbers() -> None:
    assert fold_names(3) == ["fold_1", "fold_2", "fold_3"]
    assert fold_names(12) == sorted(fold_names(12))


def test_files_of_folds_are_written_all_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest(manifest_of([12]).records, str(tmp_path / "images"))
    made = dict(zip(fold_names(2), make_folds(manifest, FoldPlan(2), 0), strict=True))
    save_folds(made, tmp_path / "new" / "folds")
    assert sorted(os.listdir(tmp_path / "new")) == ["folds"]
    loaded = Manifest.load(tmp_path / "new" / "folds" / "fold_2.csv")
    assert loaded.files() == manifest.files()
    assert [r.split for r in loaded.records] == [r.split for r in made["fold_2"].records]
    with pytest.raises(UserError, match="not empty"):
        save_folds(made, tmp_path / "new" / "folds")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_folds(made, tmp_path / "other" / "folds")
    assert not (tmp_path / "other").exists()
