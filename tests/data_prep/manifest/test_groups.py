import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from data_prep.manifest.groups import (
    inner_paths,
    linked_pairs,
    unit_numbers,
    with_group_column,
    with_groups_of,
    with_joined_groups,
)
from data_prep.manifest.manifest import Manifest, Record


def components(n: int, links: list[tuple[int, int]]) -> list[frozenset[int]]:
    """What is together, by merging sets until nothing changes."""
    home = {i: {i} for i in range(n)}
    for one, other in links:
        joined = home[one] | home[other]
        for index in joined:
            home[index] = joined
    return [frozenset(home[i]) for i in range(n)]


@settings(max_examples=80, deadline=None)
@given(data=st.data(), n=st.integers(1, 25))
def test_units_are_what_files_groups_hashes_and_pairs_join(data: st.DataObject, n: int) -> None:
    number = st.integers(0, 12)
    keys = data.draw(st.lists(st.tuples(number, number, number), min_size=n, max_size=n))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=6))
    records = tuple(
        Record(
            f"{file}.png", group=f"g{group}" * (group > 3), tile=str(i), sha256="ab" * (hash_ > 9)
        )
        for i, (file, group, hash_) in enumerate(keys)
    )
    links = [
        (i, j)
        for i in range(n)
        for j in range(i)
        if records[i].path == records[j].path
        or (records[i].group and records[i].group == records[j].group)
        or (records[i].sha256 and records[i].sha256 == records[j].sha256)
    ]
    units = unit_numbers(Manifest(records), np.array(pairs, dtype=np.int64).reshape(-1, 2))
    expected = components(n, [*links, *pairs])
    assert [frozenset(np.flatnonzero(units == unit).tolist()) for unit in units] == expected
    assert sorted(set(units.tolist())) == list(range(len(set(expected))))


def test_units_are_numbered_by_group_and_path_whatever_the_order() -> None:
    records = [
        Record("z.png", group="b"),
        Record("a.png"),
        Record("c.png"),
        Record("y.png", group="a"),
    ]
    assert unit_numbers(Manifest(tuple(records))).tolist() == [1, 2, 3, 0]
    assert unit_numbers(Manifest(tuple(records[::-1]))).tolist() == [0, 3, 2, 1]


def test_spellings_of_one_path_are_one_file() -> None:
    records = (Record("a/../b.png"), Record("b.png", tile="0,0,8,8"), Record("c.png"))
    assert unit_numbers(Manifest(records)).tolist() == [0, 0, 1]


def test_inner_paths_are_the_same_wherever_the_manifest_lies() -> None:
    paths = ["rbc/1.png", "wbc/deep/2.png"]
    folder = Manifest(tuple(Record(path) for path in paths), "/data/set")
    listed = Manifest(tuple(Record(f"/data/set/{path}") for path in paths), "/somewhere/else")
    assert inner_paths(folder) == inner_paths(listed) == ["/rbc/1.png", "/wbc/deep/2.png"]
    assert inner_paths(Manifest((Record("x/1.png"), Record("x/2.png")))) == ["/1.png", "/2.png"]


def groups(manifest: Manifest) -> list[str]:
    return [record.group for record in manifest.records]


def test_groups_from_paths() -> None:
    manifest = Manifest(
        tuple(Record(p) for p in ("rbc/f1_obj2.jpg", "wbc/f1_obj0.jpg", "wbc/f2_obj1.jpg"))
    )
    assert groups(with_group_column(manifest, "^.*/(.*)_obj")) == ["f1", "f1", "f2"]
    flat = Manifest((Record("f1_obj2.jpg"), Record("f2_obj1.jpg")))
    assert groups(with_group_column(flat, "^.*/(.*)_obj")) == ["f1", "f2"]
    assert groups(with_group_column(manifest, "/wbc/(.*)_obj|$")) == ["", "f1", "f2"]


def test_groups_from_columns(tmp_path: Path) -> None:
    csv = tmp_path / "m.csv"
    csv.write_text("Path,label,case,Hole\nb.png,x,1,h7\na.png,x,2,\nc.png,y,2,h8\n")
    manifest = Manifest.load(csv)
    assert groups(with_group_column(manifest, "case")) == ["1", "2", "2"]
    assert groups(with_group_column(manifest, "Hole", str(csv))) == ["h7", "", "h8"]
    some = manifest.subset(manifest.records[2:])
    assert groups(with_group_column(some, "hole", str(csv))) == ["h8"]


@pytest.mark.parametrize(
    ("group_by", "said"),
    [
        ("hole", r"no such column; there are label, split, group.*needs a group in parentheses"),
        ("(", "not a regular expression"),
        ("(?:a)", "needs a group in parentheses"),
        ("b/(.)", r"does not match 1 of 2 paths, such as /a/1.png"),
        ("group", "no image has a group"),
    ],
)
def test_groups_that_cannot_be_had(group_by: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        with_group_column(Manifest((Record("a/1.png"), Record("b/1.png"))), group_by)


def test_joined_groups_keep_a_later_command_to_the_same_units() -> None:
    records = (
        Record("a/1.png", group="g2"),
        Record("a/2.png", group="g1"),
        Record("a/3.png"),
        Record("b/4.png"),
        Record("b/5.png", group="g3"),
        Record("b/6.png", sha256="aa"),
        Record("b/7.png", sha256="aa"),
        Record("b/8.png", tile="0,0,4,4"),
        Record("b/8.png", tile="4,0,4,4"),
        Record("b/9.png"),
    )
    pairs = np.array([[0, 1], [3, 2]])
    joined = with_joined_groups(Manifest(records), pairs)
    assert groups(joined) == [
        *("g1", "g1", "like a/3.png", "like a/3.png", "g3"),
        *("like b/6.png", "like b/6.png", "", "", ""),
    ]
    assert unit_numbers(joined).max() == unit_numbers(Manifest(records), pairs).max()
    assert groups(with_groups_of(joined.subset(joined.records[1:3]), Manifest(records))) == [
        "g1",
        "",
    ]


def test_links_to_one_file_are_found(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    os.link(tmp_path / "a.png", tmp_path / "hard.png")
    (tmp_path / "soft.png").symlink_to(tmp_path / "b.png")
    names = ["hard.png", "b.png", "a.png", "soft.png"]
    manifest = Manifest(tuple(map(Record, names)), str(tmp_path))
    assert linked_pairs(manifest).tolist() == [[0, 2], [1, 3]]
    with pytest.raises(UserError, match=r"gone\.png: No such file"):
        linked_pairs(Manifest((Record("gone.png"),), str(tmp_path)))
