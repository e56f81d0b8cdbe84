import fcntl
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from simclr_tf.embedding.compute import join_shards
from simclr_tf.embedding.shards import ShardPlan, open_shards, the_one_that_joins
from tests.simclr_tf.embedding.common import records

PLAN = ShardPlan(images=23, shard_images=5, key="one")
ROWS = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)


def rows_of(shard: int) -> np.ndarray:
    return ROWS[list(PLAN.rows(shard))]


def test_every_image_is_in_one_shard() -> None:
    assert [list(PLAN.rows(shard)) for shard in range(PLAN.shards)] == [
        list(range(0, 5)), list(range(5, 10)), list(range(10, 15)), list(range(15, 20)),
        list(range(20, 23)),
    ]  # fmt: skip


def test_workers_share_the_shards_and_see_what_is_missing(tmp_path: Path) -> None:
    with open_shards(tmp_path / "out", PLAN) as shards:
        parts = [shards.missing(worker, 3) for worker in range(3)]
        assert parts == [[0, 3], [1, 4], [2]]
        shards.write(3, rows_of(3), {})
        assert shards.missing(0, 3) == [0]
        assert shards.missing() == [0, 1, 2, 4]
    with open_shards(tmp_path / "out", PLAN) as shards:
        assert shards.missing() == [0, 1, 2, 4], "what is there is kept"


def test_features_without_their_marker_do_not_count(tmp_path: Path) -> None:
    with open_shards(tmp_path / "out", PLAN) as shards:
        np.save(shards.folder / "000001.npy", rows_of(1) + 1)
        assert 1 in shards.missing()


def test_shards_of_another_plan_are_thrown_away(tmp_path: Path) -> None:
    with open_shards(tmp_path / "out", PLAN) as shards:
        shards.write(0, rows_of(0), {})
    with open_shards(tmp_path / "out", ShardPlan(23, 5, "another")) as shards:
        assert shards.missing() == [0, 1, 2, 3, 4]


def test_another_plan_is_refused_while_somebody_works_on_the_first(tmp_path: Path) -> None:
    with open_shards(tmp_path / "out", PLAN) as shards:
        shards.write(0, rows_of(0), {})
        with (
            pytest.raises(UserError, match="other features"),
            open_shards(tmp_path / "out", ShardPlan(23, 5, "another"), worker=1),
        ):
            pass
        with open_shards(tmp_path / "out", PLAN, worker=1) as others:
            assert others.missing() == [1, 2, 3, 4], "the same plan is welcome"
        with (
            pytest.raises(UserError, match=r"another process \(worker 0\) is writing"),
            open_shards(tmp_path / "out", PLAN),
        ):
            pass


def test_one_process_joins_at_a_time(tmp_path: Path) -> None:
    with open_shards(tmp_path / "out", PLAN):
        with the_one_that_joins(tmp_path / "out") as place:
            assert place is not None
            with the_one_that_joins(tmp_path / "out") as second:
                assert second is None
            place.mkdir()
            (place / "half.npy").write_text("of a process that was killed")
        with the_one_that_joins(tmp_path / "out") as place:
            assert place is not None
            assert not place.exists()


def test_the_joined_file_holds_all_rows_in_order_and_opens_as_a_map(tmp_path: Path) -> None:
    images = Manifest(records(23), str(tmp_path))
    with open_shards(tmp_path / "out", PLAN) as shards:
        for shard in (4, 2, 0, 1, 3):
            shards.write(shard, rows_of(shard), {})
        joined = tmp_path / "joined"
        joined.mkdir()
        kept = join_shards(shards, images, joined)
    assert kept == images
    mapped = np.load(joined / "features.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, ROWS)
    np.save(tmp_path / "plain.npy", ROWS)
    assert (joined / "features.npy").read_bytes() == (tmp_path / "plain.npy").read_bytes()


def test_unreadable_images_are_left_out_and_listed(tmp_path: Path) -> None:
    images = Manifest(records(23), str(tmp_path))
    bad = {1: {0: "is cut off", 3: "is empty"}, 4: {2: "is no image"}}
    with open_shards(tmp_path / "out", PLAN) as shards:
        for shard in range(5):
            shards.write(shard, rows_of(shard), bad.get(shard, {}))
        joined = tmp_path / "joined"
        joined.mkdir()
        kept = join_shards(shards, images, joined)
    left = [row for row in range(23) if row not in (5, 8, 22)]
    np.testing.assert_array_equal(np.load(joined / "features.npy"), ROWS[left])
    assert kept.records == tuple(images.records[row] for row in left)
    paths = [images.records[row].path for row in (5, 8, 22)]
    lines = (joined / "unreadable.csv").read_text().splitlines()
    assert lines == ["path,problem", f"{paths[0]},is cut off", f"{paths[1]},is empty",
                     f"{paths[2]},is no image"]  # fmt: skip


def is_locked(file: Path) -> bool:
    with open(file) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_locks_last_as_long_as_the_block(tmp_path: Path) -> None:
    lock = tmp_path / ".out.partial" / "lock"
    with open_shards(tmp_path / "out", PLAN):
        assert is_locked(lock)
    assert not is_locked(lock)
