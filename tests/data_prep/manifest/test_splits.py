from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from data_prep.manifest.allocation import apportion
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.splits import labels_per_class, parse_ratios, stratified_split

RATIOS = {"train": 0.6, "validation": 0.3, "test": 0.1}

seeds = st.integers(0, 2**31)
class_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=6).filter(
    lambda sizes: sum(sizes) >= 20
)


def manifest_of(sizes: list[int]) -> Manifest:
    return Manifest(
        tuple(
            Record(f"c{label}/{number:03d}.png", f"c{label}")
            for label, size in enumerate(sizes)
            for number in range(size)
        )
    )


def members(manifest: Manifest) -> dict[str, set[str]]:
    return {name: {r.path for r in manifest.split(name).records} for name in manifest.splits}


@settings(max_examples=100, deadline=None)
@given(sizes=class_sizes, seed=seeds)
def test_every_image_is_in_exactly_one_split_and_counts_are_exact(
    sizes: list[int], seed: int
) -> None:
    manifest = manifest_of(sizes)
    split = stratified_split(manifest, RATIOS, seed)
    assert [r.path for r in split.records] == [r.path for r in manifest.records]
    assert [r.label for r in split.records] == [r.label for r in manifest.records]
    count = Counter(r.split for r in split.records)
    assert [count[name] for name in RATIOS] == apportion(sum(sizes), [0.6, 0.3, 0.1]).tolist()
    by_class = Counter((r.label, r.split) for r in split.records)
    for label, size in enumerate(sizes):
        for name, share in RATIOS.items():
            assert abs(by_class[f"c{label}", name] - size * share) < 1


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=seeds)
def test_groups_are_never_torn_and_nothing_is_lost(data: st.DataObject, seed: int) -> None:
    sizes = data.draw(class_sizes)
    plain = manifest_of(sizes)
    groups = data.draw(st.lists(st.integers(0, 15), min_size=len(plain), max_size=len(plain)))
    records = tuple(
        Record(r.path, r.label, group=f"g{group}" if group else "")
        for r, group in zip(plain.records, groups, strict=True)
    )
    units = {record.group or record.path for record in records}
    if len(units) < len(RATIOS):
        return
    split = stratified_split(Manifest(records), RATIOS, seed)
    assert [r.path for r in split.records] == [r.path for r in records]
    assert set(split.splits) == set(RATIOS)
    homes = {(r.group, r.split) for r in split.records if r.group}
    assert len(homes) == len({r.group for r in records if r.group})


def test_many_small_groups_meet_the_numbers_nearly() -> None:
    records = tuple(
        Record(f"c{label}/{number}.png", f"c{label}", group=f"core{label}-{number // 4}")
        for label in range(3)
        for number in range(100)
    )
    split = stratified_split(Manifest(records), RATIOS, seed=3)
    count = Counter((r.label, r.split) for r in split.records)
    for label in range(3):
        for name, share in RATIOS.items():
            assert abs(count[f"c{label}", name] - 100 * share) <= 4


def test_groups_of_unequal_size_with_singles_come_out_exact() -> None:
    records = [Record(f"g{g}/{n}.png", "a", group=f"g{g}") for g in range(6) for n in range(5 + g)]
    records += [Record(f"single{n}.png", "a") for n in range(155)]
    split = stratified_split(Manifest(tuple(records)), RATIOS, seed=1)
    count = Counter(r.split for r in split.records)
    assert count == {"train": 120, "validation": 60, "test": 20}


@settings(max_examples=30, deadline=None)
@given(seed=seeds, shuffle=st.randoms())
def test_split_depends_on_seed_and_paths_not_on_order(seed: int, shuffle) -> None:
    manifest = manifest_of([30, 20])
    records = list(manifest.records)
    shuffle.shuffle(records)
    once = members(stratified_split(manifest, RATIOS, seed))
    assert once == members(stratified_split(Manifest(tuple(records)), RATIOS, seed))
    assert once != members(stratified_split(manifest, RATIOS, seed + 1))


def test_split_is_fixed_for_all_time() -> None:
    split = stratified_split(manifest_of([10, 10]), {"train": 0.8, "test": 0.2}, seed=0)
    assert sorted(members(split)["test"]) == GOLDEN_TEST_SPLIT


GOLDEN_TEST_SPLIT = ["c0/004.png", "c0/007.png", "c1/000.png", "c1/009.png"]


def test_groups_are_dealt_as_they_always_were() -> None:
    records = tuple(Record(f"{n:02d}.png", "ab"[n % 2], group=f"g{n % 7}") for n in range(40))
    split = stratified_split(Manifest(records), RATIOS, seed=5)
    homes = dict(sorted({(r.group, r.split) for r in split.records}))
    assert " ".join(homes[f"g{n}"][:2] for n in range(7)) == GOLDEN_GROUP_SPLIT


GOLDEN_GROUP_SPLIT = "tr va tr tr tr va te"


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=seeds)
def test_tiles_and_identical_files_are_never_torn(data: st.DataObject, seed: int) -> None:
    keys = data.draw(
        st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=40, max_size=60)
    )
    records = tuple(
        Record(f"{file}.png", "abc"[i % 3], tile=f"{i},0,1,1", sha256=f"{hash_}" * (hash_ > 20))
        for i, (file, hash_) in enumerate(keys)
    )
    try:
        split = stratified_split(Manifest(records), RATIOS, seed)
    except UserError:
        return  # too few units
    for key in ("path", "sha256"):
        homes = {(getattr(r, key), r.split) for r in split.records if getattr(r, key)}
        assert len(homes) == len({getattr(r, key) for r in records} - {""})


def test_hashes_change_nothing_where_no_two_are_the_same() -> None:
    plain = manifest_of([20, 30])
    hashed = plain.subset(replace(r, sha256=f"{i:064x}") for i, r in enumerate(plain.records))
    split = stratified_split(hashed, RATIOS, 3)
    assert members(split) == members(stratified_split(plain, RATIOS, 3))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train", "'train' is not NAME:SHARE"),
        ("train:x", "is not NAME:SHARE"),
        (":0.5,test:0.5", "':0.5' is not NAME:SHARE"),
        ("train:0.5,val:0.2,validation:0.3", "'validation' is named twice"),
    ],
)
def test_ratios_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_ratios(text)


def test_ratios_are_read_in_order_with_the_usual_names() -> None:
    assert list(parse_ratios("Train:0.6, val:0.3 ,odd:0.1").items()) == [
        *(("train", 0.6), ("validation", 0.3), ("odd", 0.1)),
    ]


def test_every_image_gets_its_share_of_splits_over_the_seeds() -> None:
    manifest = manifest_of([10])
    hits = Counter(
        record.path
        for seed in range(400)
        for record in stratified_split(manifest, {"a": 0.8, "b": 0.2}, seed).split("b").records
    )
    # 80 expected, standard deviation 8.
    assert all(abs(hits[r.path] - 80) < 40 for r in manifest.records)


def test_unlabeled_images_are_shared_out_like_a_class() -> None:
    records = manifest_of([10]).records + tuple(Record(f"u{n}.png") for n in range(10))
    split = stratified_split(Manifest(records), {"train": 0.8, "test": 0.2}, 0)
    count = Counter((r.label, r.split) for r in split.records)
    assert count["", "test"] == count["c0", "test"] == 2


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ({}, "needs a share above 0"),
        ({"train": 1.0, "test": 0.0}, "needs a share above 0"),
        ({"train": float("nan"), "test": 0.5}, "needs a share above 0"),
        ({"train": 0.6, "test": 0.3}, "must add up to 1, not 0.9"),
        ({"train": 0.98, "test": 0.02}, "20 images are too few for the split 'test'"),
    ],
)
def test_impossible_splits_are_refused(ratios: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        stratified_split(manifest_of([20]), ratios, 0)


def test_too_few_groups_are_refused() -> None:
    records = tuple(Record(f"{n}.png", "a", group=f"g{n % 2}") for n in range(40))
    with pytest.raises(UserError, match="2 groups are too few for the split 'test'"):
        stratified_split(Manifest(records), RATIOS, 0)


def test_as_many_groups_as_splits_fill_them_all() -> None:
    records = tuple(Record(f"{n}.png", "a", group=f"g{n % 3}") for n in range(60))
    split = stratified_split(Manifest(records), RATIOS, 0)
    assert {name: len(split.split(name)) for name in split.splits} == dict.fromkeys(RATIOS, 20)


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(10, 30), min_size=1, max_size=5), seed=seeds)
def test_label_draws_are_exact_and_nested(sizes: list[int], seed: int) -> None:
    manifest = manifest_of(sizes)
    before: set[str] = set()
    for number in (1, 2, 5, 10):
        drawn = labels_per_class(manifest, number, seed)
        assert Counter(r.label for r in drawn.records) == dict.fromkeys(
            manifest.class_names, number
        )
        paths = {r.path for r in drawn.records}
        assert len(paths) == len(drawn)
        assert before < paths
        before = paths


def test_label_draw_of_a_class_does_not_depend_on_the_others() -> None:
    alone = labels_per_class(manifest_of([20]), 5, 7).records
    among = [r for r in labels_per_class(manifest_of([20, 9, 14]), 5, 7).records if r.label == "c0"]
    assert list(alone) == among
    assert set(alone) != set(labels_per_class(manifest_of([20]), 5, 8).records)


def test_label_draws_that_cannot_be() -> None:
    with pytest.raises(UserError, match="class 'c1' has 3 images, fewer than the 5"):
        labels_per_class(manifest_of([9, 3]), 5, 0)
    with pytest.raises(UserError, match="no image has a label"):
        labels_per_class(Manifest((Record("a.png"),)), 1, 0)
    with pytest.raises(UserError, match="at least 1"):
        labels_per_class(manifest_of([9]), 0, 0)


def test_label_draw_leaves_unlabeled_images_out() -> None:
    records = (*manifest_of([6]).records, Record("u.png"))
    drawn = labels_per_class(Manifest(records), 6, 0)
    assert np.array_equal([r.path for r in drawn.records], [r.path for r in records[:6]])
