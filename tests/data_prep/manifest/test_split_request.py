from collections import Counter
from dataclasses import replace

import pytest

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.split_request import SplitRequest, deviation_from_ratios, divide
from data_prep.manifest.splits import FoldPlan, make_folds, stratified_split
from tests.data_prep.manifest.test_splits import manifest_of

RATIOS = {"train": 0.75, "validation": 0.25}


def given() -> Manifest:
    """Images that come with a training and a test part."""
    return stratified_split(manifest_of([40, 60]), {"train": 0.8, "test": 0.2}, 9)


def counts(manifest: Manifest) -> dict[str, int]:
    return dict(Counter(record.split for record in manifest.records))


def test_ratios_and_folds_are_those_of_their_functions() -> None:
    manifest = manifest_of([40, 60])
    assert divide(manifest, SplitRequest(RATIOS, 4)) == [stratified_split(manifest, RATIOS, 4)]
    assert divide(manifest, SplitRequest(seed=4, folds=FoldPlan(3))) == make_folds(
        manifest, FoldPlan(3), 4
    )


def test_splits_that_are_there_are_kept_or_replaced_only_on_request() -> None:
    assert divide(given(), SplitRequest()) == [given()]
    with pytest.raises(UserError, match=r"have splits already \(train, test\)"):
        divide(given(), SplitRequest(RATIOS))
    (again,) = divide(given(), SplitRequest(RATIOS, resplit=True))
    assert counts(again) == {"train": 75, "validation": 25}


def test_one_split_is_divided_and_the_others_stay() -> None:
    (result,) = divide(given(), SplitRequest(RATIOS, within="train"))
    assert counts(result) == {"train": 60, "validation": 20, "test": 20}
    assert result.split("test") == given().split("test")
    assert [r.path for r in result.records] == [r.path for r in given().records]
    plan = FoldPlan(4, "validation")
    folds = divide(given(), SplitRequest(folds=plan, within="train"))
    assert [counts(fold) for fold in folds] == [{"train": 60, "validation": 20, "test": 20}] * 4
    with pytest.raises(UserError, match="have a split 'test' besides"):
        divide(given(), SplitRequest({"train": 0.5, "test": 0.5}, within="train"))


def test_subsets_thin_out_every_fold() -> None:
    folds = divide(manifest_of([60, 60]), SplitRequest(folds=FoldPlan(3), subsets={"train": 0.2}))
    assert [counts(fold) for fold in folds] == [{"train": 16, "test": 40}] * 3


def test_a_request_for_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="give --ratios, such as"):
        divide(manifest_of([20]), SplitRequest())


def test_the_departure_from_exact_numbers_is_that_of_the_worst_cell() -> None:
    exact = stratified_split(manifest_of([40, 60]), RATIOS, 0)
    assert deviation_from_ratios(exact, RATIOS)[0] == 0
    moved = exact.subset(
        replace(r, split="train") if r.label == "c1" and i % 3 else r
        for i, r in enumerate(exact.records)
    )
    left = sum(r.label == "c1" and r.split == "validation" for r in moved.records)
    assert deviation_from_ratios(moved, RATIOS) == (15 - left, "c1", "validation")


def test_merging_changes_no_split_and_may_be_all_that_is_wanted() -> None:
    manifest, merges = manifest_of([40, 60]), {"all": ["c0", "c1"]}
    (merged,) = divide(manifest, SplitRequest(RATIOS, 4, merges=merges))
    (plain,) = divide(manifest, SplitRequest(RATIOS, 4))
    assert merged.class_names == ("all",)
    assert [r.split for r in merged.records] == [r.split for r in plain.records]
    (alone,) = divide(manifest, SplitRequest(merges=merges))
    assert (alone.class_names, alone.splits) == (("all",), ())


def test_a_departure_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    manifest = manifest_of([40])
    divide(manifest, SplitRequest(RATIOS))
    assert caplog.text == ""
    grouped = manifest.subset(
        replace(r, group="ab"[i // 20]) for i, r in enumerate(manifest.records)
    )
    divide(grouped, SplitRequest(RATIOS))
    assert "a number up to 10 beside the exact one (c0 in" in caplog.text
