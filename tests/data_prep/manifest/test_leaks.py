from pathlib import Path

import numpy as np

from data_prep.manifest.leaks import LeakCheck, check_leaks
from data_prep.manifest.manifest import Manifest, Record


def found(manifest: Manifest) -> dict[str, LeakCheck]:
    return {leak.what: leak for leak in check_leaks(manifest)}


def test_clean_splits_share_nothing(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode())  # the same size, other bytes
    records = (
        Record("a", "x", "train", "g1"),
        Record("b", "x", "train", "g1"),
        Record("c", "x", "test", "g2"),
    )
    leaks = found(Manifest(records, str(tmp_path)))
    assert [leak.shared for leak in leaks.values()] == [0, 0, 0]
    assert leaks["picture"].checked == leaks["file content"].checked == 3
    assert leaks["group"].checked == 2


def test_copies_links_and_groups_in_two_splits_are_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "copy").write_bytes(b"same")
    (tmp_path / "b").write_bytes(b"more bytes")
    (tmp_path / "link").symlink_to("b")
    records = (
        Record("a", split="train", group="core 1"),
        Record("copy", split="test"),
        Record("b", split="train"),
        Record("link", split="validation", group="core 1"),
    )
    leaks = found(Manifest(records, str(tmp_path)))
    assert leaks["picture"].shared == 1
    assert leaks["picture"].example == "b (train), link (validation)"
    assert leaks["file content"].shared == 2
    assert leaks["file content"].example == "a (train), copy (test)"
    assert leaks["group"] == LeakCheck("group", 1, 1, "core 1 (train), core 1 (validation)")


def test_copies_within_a_split_are_no_leak(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"same" if name != "c" else b"else")
    records = (Record("a", split="train"), Record("b", split="train"), Record("c", split="test"))
    leaks = found(Manifest(records, str(tmp_path)))
    assert leaks["file content"].shared == 0
    assert leaks["file content"].checked == 2


def test_hashes_of_the_manifest_are_believed_and_lost_files_pass(tmp_path: Path) -> None:
    records = tuple(
        Record(f"gone{i}", split=split, sha256=f"{i % 2}")
        for i, split in enumerate(["train", "train", "test"])
    )
    leaks = found(Manifest(records, str(tmp_path)))
    assert leaks["file content"].shared == 1
    without = Manifest((Record("gone", split="train"), Record("off", split="test")), str(tmp_path))
    assert found(without)["file content"] == LeakCheck("file content", 0, 0)


def test_the_images_of_one_stack_may_be_in_several_splits(tmp_path: Path) -> None:
    stack = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    stack[3] = stack[0]
    np.save(tmp_path / "stack.npy", stack)
    pages = [("train", 0), ("train", 1), ("test", 2)]
    records = [Record("stack.npy", split=s, reading=f"page={page};axes=NHW") for s, page in pages]
    leaks = found(Manifest(tuple(records), str(tmp_path)))
    assert leaks["image content"].checked == 3
    assert [leak.shared for leak in leaks.values()] == [0, 0, 0]
    records.append(Record("stack.npy", split="test", reading="page=1;axes=NHW"))
    leaks = found(Manifest(tuple(records), str(tmp_path)))
    assert (leaks["picture"].shared, leaks["image content"].shared) == (1, 1)


def test_equal_images_of_one_stack_in_two_splits_are_found(tmp_path: Path) -> None:
    stack = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    stack[3] = stack[0]
    np.save(tmp_path / "stack.npy", stack)
    records = [
        Record("stack.npy", split="test" if page == 3 else "train", reading=f"page={page};axes=NHW")
        for page in range(4)
    ]
    leak = found(Manifest(tuple(records), str(tmp_path)))["image content"]
    assert (leak.checked, leak.shared) == (3, 1)
    assert leak.example == "stack.npy, page 0 (train), stack.npy, page 3 (test)"
