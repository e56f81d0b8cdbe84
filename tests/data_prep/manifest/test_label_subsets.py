from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from data_prep.manifest.allocation import apportion
from data_prep.manifest.label_subsets import label_fraction, pool_subset
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.splits import labels_per_class, stratified_split
from tests.data_prep.manifest.test_splits import manifest_of

seeds = st.integers(0, 2**31)
sizes_of_classes = st.lists(st.integers(1, 60), min_size=1, max_size=6)


def labeled(manifest: Manifest) -> set[str]:
    return {record.path for record in manifest.records if record.label}


@settings(max_examples=80, deadline=None)
@given(sizes=sizes_of_classes, seed=seeds, fractions=st.lists(st.floats(0.01, 1), min_size=2))
def test_label_fractions_are_exact_stratified_and_nested(
    sizes: list[int], seed: int, fractions: list[float]
) -> None:
    manifest = manifest_of(sizes)
    before: set[str] = set()
    for fraction in sorted(fractions):
        number = apportion(sum(sizes), [fraction, 1 - fraction])[0]
        if number < len(sizes):
            with pytest.raises(UserError, match=r"too few for the \d classes|images is none"):
                label_fraction(manifest, seed, fraction=fraction)
            continue
        drawn = label_fraction(manifest, seed, fraction=fraction)
        assert [r.path for r in drawn.records] == [r.path for r in manifest.records]
        assert len(labeled(drawn)) == number
        assert before <= labeled(drawn)
        before = labeled(drawn)
        count = Counter(r.label for r in drawn.records if r.label)
        for label, size in enumerate(sizes):
            share = number * size / sum(sizes)
            assert count[f"c{label}"] >= 1
            if all(number * other / sum(sizes) >= 1 for other in sizes):
                assert abs(count[f"c{label}"] - share) < 1.5


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(6, 30), min_size=1, max_size=4), seed=seeds)
def test_numbers_a_class_are_those_of_labels_per_class(sizes: list[int], seed: int) -> None:
    manifest = manifest_of(sizes)
    drawn = label_fraction(manifest, seed, per_class=5)
    assert labeled(drawn) == labeled(labels_per_class(manifest, 5, seed))
    # A fraction takes the first of the same draw, so the two nest as well.
    everything = label_fraction(manifest, seed, fraction=1.0)
    assert everything == manifest
    few = label_fraction(manifest, seed, fraction=len(sizes) / sum(sizes))
    assert labeled(few) == labeled(labels_per_class(manifest, 1, seed))


def mixed() -> Manifest:
    unlabeled = tuple(Record(f"u/{i}.png") for i in range(30))
    split = stratified_split(manifest_of([60, 120]), {"train": 0.8, "test": 0.2}, 0)
    return Manifest(
        split.records + tuple(Record(r.path, split="train") for r in unlabeled), split.root
    )


def test_only_labeled_training_images_are_touched() -> None:
    manifest = mixed()
    drawn = label_fraction(manifest, 3, fraction=0.1)
    assert len(labeled(drawn.split("train"))) == 14
    assert drawn.split("test") == manifest.split("test")
    assert [(r.path, r.split) for r in drawn.records] == [
        (r.path, r.split) for r in manifest.records
    ]
    short = label_fraction(manifest, 3, fraction=0.1, unchosen="left_out")
    assert labeled(short) == labeled(drawn)
    assert Counter(r.split for r in short.records) == {"train": 14 + 30, "test": 36}


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_groups_are_drawn_whole_and_nest(seed: int) -> None:
    records = tuple(
        Record(f"{g}-{i}.png", f"c{(g + i // 3) % 2}", group=f"g{g}")
        for g in range(25)
        for i in range(1 + g % 5)
    )
    manifest = Manifest(records)
    before: set[str] = set()
    for fraction in (0.1, 0.3, 0.6):
        drawn = labeled(label_fraction(manifest, seed, fraction=fraction, whole_groups=True))
        groups = {r.group for r in records if r.path in drawn}
        assert drawn == {r.path for r in records if r.group in groups}
        assert abs(len(drawn) - fraction * len(records)) <= 3
        assert before < drawn
        before = drawn


@settings(max_examples=40, deadline=None)
@given(seed=seeds, shares=st.lists(st.floats(0.02, 1), min_size=2, max_size=5))
def test_subsets_are_exact_and_nested_and_leave_the_other_splits(
    seed: int, shares: list[float]
) -> None:
    manifest = mixed()
    before: set[str] = set()
    for share in sorted(shares):
        kept = pool_subset(manifest, "train", share, seed)
        paths = {r.path for r in kept.split("train").records}
        assert len(paths) == apportion(174, [share, 1 - share])[0]
        assert before <= paths
        before = paths
        assert kept.split("test") == manifest.split("test")
        order = {r.path: i for i, r in enumerate(manifest.records)}
        positions = [order[r.path] for r in kept.records]
        assert positions == sorted(positions)


def test_tiles_are_drawn_one_by_one() -> None:
    records = tuple(Record("core.png", "ab"[i % 2], tile=f"{i},0,1,1") for i in range(20))
    drawn = label_fraction(Manifest(records), 0, fraction=0.2)
    assert Counter(r.label for r in drawn.records) == {"": 16, "a": 2, "b": 2}


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "either a fraction or a number"),
        ({"fraction": 0.1, "per_class": 2}, "either a fraction or a number"),
        ({"fraction": 0.0}, "above 0 and at most 1"),
        ({"fraction": 1.1}, "above 0 and at most 1"),
        ({"fraction": 0.01}, "0.01 of 144 labelled images is 1, too few for the 2 classes"),
        ({"fraction": 0.001}, "0.001 of 144 images is none"),
        ({"fraction": 0.5, "split": "dev"}, "no split 'dev'"),
        ({"per_class": 3, "whole_groups": True}, "draws single images"),
        ({"per_class": 99}, "class 'c0' has 48 images"),
    ],
)
def test_draws_that_cannot_be(request_: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        label_fraction(mixed(), 0, **request_)


def test_unlabeled_images_have_no_labels_to_draw() -> None:
    with pytest.raises(UserError, match="has a label to draw from"):
        label_fraction(Manifest((Record("a.png"),)), 0, fraction=0.5)
