import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data_prep.errors import UserError
from simclr_tf.checkpoints import download
from simclr_tf.checkpoints.download import MARKER, fetch_folder, is_complete, list_files
from tests.simclr_tf.checkpoints.bucket import BUCKET, DATA, WANTED, Bucket, release, serving

PREFIX = "simclrv2/pretrained/r50_1x_sk0/"
NOTES = {MARKER, ".lock"}


@pytest.fixture(autouse=True)
def _quick_and_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_BACK_OFF_SECONDS", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with serving(Bucket(release(PREFIX))) as served:
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "r50"


def fetch(bucket: Bucket, folder: Path) -> None:
    fetch_folder(BUCKET, PREFIX, folder, base_url=bucket.base_url)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_whole(bucket: Bucket, folder: Path) -> None:
    assert names(folder) == {*WANTED, *NOTES}
    for name in WANTED:
        assert (folder / name).read_bytes() == bucket.objects[PREFIX + name]
    assert is_complete(folder)


def test_the_weights_arrive_byte_for_byte_and_nothing_else(bucket: Bucket, folder: Path) -> None:
    assert not is_complete(folder)
    fetch(bucket, folder)
    assert_whole(bucket, folder)
    assert sorted(bucket.media) == [(PREFIX + name, None) for name in WANTED]
    noted = json.loads((folder / MARKER).read_text())["files"]
    assert {item["name"]: item["size"] for item in noted} == {
        name: len(bucket.objects[PREFIX + name]) for name in WANTED
    }


def test_a_listing_in_pages_is_read_to_its_end(bucket: Bucket) -> None:
    at_once = list_files(BUCKET, PREFIX, base_url=bucket.base_url)
    bucket.page_size = 2
    assert list_files(BUCKET, PREFIX, base_url=bucket.base_url) == at_once
    assert tuple(file.name for file in at_once) == WANTED
    assert bucket.listings == ["", "", "2", "4", "6", "8"]


def test_a_broken_connection_is_taken_up_where_it_stopped(bucket: Bucket, folder: Path) -> None:
    bucket.break_after, bucket.breaks = 1500, 2
    fetch(bucket, folder)
    assert_whole(bucket, folder)
    assert bucket.ranges_of(DATA) == [None, "bytes=1500-", "bytes=3000-"]


def test_the_next_process_asks_only_for_the_rest(bucket: Bucket, folder: Path) -> None:
    bucket.break_after, bucket.breaks = 1500, 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "_ATTEMPTS", 1)
        with pytest.raises(UserError, match=r"broke off after 1500 of 5000 bytes.* by hand"):
            fetch(bucket, folder)
    assert not is_complete(folder)
    assert (folder / f"{DATA}.part").stat().st_size == 1500
    fetch(bucket, folder)
    assert_whole(bucket, folder)
    assert bucket.ranges_of(DATA) == [None, "bytes=1500-"]
    assert bucket.ranges_of("checkpoint") == [None]


def test_a_server_without_ranges_sends_all_of_it_again(bucket: Bucket, folder: Path) -> None:
    bucket.break_after, bucket.breaks, bucket.ignores_range = 1500, 1, True
    fetch(bucket, folder)
    assert_whole(bucket, folder)
    assert bucket.ranges_of(DATA) == [None, "bytes=1500-"]


def test_attempts_that_bring_nothing_new_come_to_an_end(bucket: Bucket, folder: Path) -> None:
    bucket.break_after, bucket.breaks, bucket.ignores_range = 1500, 1000, True
    with pytest.raises(UserError, match="broke off"):
        fetch(bucket, folder)
    assert len(bucket.ranges_of(DATA)) == download._ATTEMPTS
    assert not is_complete(folder)


def test_attempts_that_bring_something_are_not_counted(bucket: Bucket, folder: Path) -> None:
    bucket.break_after, bucket.breaks = 100, 1000
    fetch(bucket, folder)
    assert_whole(bucket, folder)
    assert len(bucket.ranges_of(DATA)) == 50 > download._ATTEMPTS


def test_a_busy_server_is_asked_again_but_not_one_that_refuses(
    bucket: Bucket, folder: Path
) -> None:
    bucket.refusals = [503, 429]
    fetch(bucket, folder)
    assert bucket.ranges_of("checkpoint") == [None, None, None]
    bucket.refusals = [403]
    bucket.media.clear()
    (folder / DATA).write_bytes(b"short")
    with pytest.raises(UserError, match=f"{PREFIX}{DATA} answered 403 Forbidden"):
        fetch(bucket, folder)
    assert bucket.ranges_of(DATA) == [None]


@pytest.mark.parametrize("wrong_end", [b"?", b"and more than that"])
def test_a_wrong_file_is_refused_and_nothing_left_that_is_trusted(
    bucket: Bucket, folder: Path, wrong_end: bytes
) -> None:
    bucket.corrupt, bucket.wrong_end = {PREFIX + DATA}, wrong_end
    with pytest.raises(UserError, match=f"{DATA} came with a wrong checksum"):
        fetch(bucket, folder)
    assert not names(folder) & {DATA, f"{DATA}.part", MARKER}
    assert not is_complete(folder)
    bucket.corrupt = set()
    fetch(bucket, folder)
    assert_whole(bucket, folder)


def test_a_damaged_file_of_the_right_size_is_fetched_again(bucket: Bucket, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / DATA).write_bytes(bytes(5000))
    (folder / f"{WANTED[0]}.part").write_bytes(bytes(5000))  # longer than the file: of another one
    fetch(bucket, folder)
    assert_whole(bucket, folder)


def test_without_checksums_the_size_decides(bucket: Bucket, folder: Path) -> None:
    bucket.has_md5 = False
    fetch(bucket, folder)
    assert_whole(bucket, folder)


def test_a_file_cut_short_afterwards_is_noticed(bucket: Bucket, folder: Path) -> None:
    fetch(bucket, folder)
    (folder / DATA).write_bytes(b"short")
    assert not is_complete(folder)
    fetch(bucket, folder)
    assert_whole(bucket, folder)
    assert bucket.ranges_of("checkpoint") == [None]


def test_files_placed_by_hand_count_only_if_all_are_there(folder: Path) -> None:
    folder.mkdir(parents=True)
    assert not is_complete(folder)
    (folder / "model.ckpt-9.index").touch()
    (folder / "model.ckpt-9.data-00000-of-00002").touch()
    assert not is_complete(folder)
    (folder / "model.ckpt-9.data-00001-of-00002").touch()
    assert is_complete(folder)


def test_half_a_download_is_not_taken_for_files_placed_by_hand(
    bucket: Bucket, folder: Path
) -> None:
    second = {f"{PREFIX}z.index": b"i", f"{PREFIX}z.data-00000-of-00001": b"d"}
    bucket.objects |= second
    bucket.corrupt = {f"{PREFIX}z.data-00000-of-00001"}
    with pytest.raises(UserError, match="wrong checksum"):
        fetch(bucket, folder)
    assert names(folder) >= set(WANTED), "the first checkpoint is there"
    assert not is_complete(folder)
    for name, content in second.items():
        (folder / name.removeprefix(PREFIX)).write_bytes(content)
    assert is_complete(folder), "what was missing has been placed by hand"


def test_processes_that_ask_at_once_download_once(bucket: Bucket, folder: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: fetch(bucket, folder), range(4)))
    assert_whole(bucket, folder)
    assert len(bucket.media) == len(WANTED)


def test_what_is_no_listing_is_named(bucket: Bucket, folder: Path) -> None:
    with pytest.raises(UserError, match=r"/o answered 404 .* by hand"):
        fetch_folder("elsewhere", PREFIX, folder, base_url=bucket.base_url)
    with pytest.raises(UserError, match=r"/o lists no whole checkpoint below nothing/"):
        fetch_folder(BUCKET, "nothing/", folder, base_url=bucket.base_url)
    bucket.objects["storage/v1/b/login/o"] = b"<html>Please log in</html>"
    with pytest.raises(UserError, match="/o did not answer with a list of files"):
        fetch_folder("login", PREFIX, folder, base_url=f"{bucket.base_url}/{BUCKET}")


def test_progress_is_told_now_and_then(
    bucket: Bucket,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket.objects[PREFIX + DATA] = bytes(2_000_000)
    monkeypatch.setattr(download, "_CHUNK_BYTES", 500_000)
    monkeypatch.setattr(download, "_SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO, "simclr_tf"):
        fetch(bucket, folder)
    assert "1.5 of 2.0 MB" in caplog.text
    assert "MB/s  0 s left" in caplog.text
    caplog.clear()
    (folder / DATA).unlink()
    monkeypatch.setattr(download, "_SECONDS_BETWEEN_LINES", 1000.0)
    with caplog.at_level(logging.INFO, "simclr_tf"):
        fetch(bucket, folder)
    assert "left" not in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        "/escaped", "..", "C:escaped", "..\\escaped", "\\escaped", "variables/..",
        "variables/C:x", "a\nb", MARKER, f"{MARKER}.part", ".lock", "x.part",
    ],
)  # fmt: skip
def test_names_of_a_listing_that_mean_another_place_write_nothing(
    bucket: Bucket, folder: Path, tmp_path: Path, name: str
) -> None:
    bucket.objects[PREFIX + name] = b"bad"
    with pytest.raises(UserError, match="no name of a file of a checkpoint"):
        fetch(bucket, folder)
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert written <= {"cache/r50/.lock"}
    assert bucket.media == []


def test_names_below_other_folders_are_left_out(bucket: Bucket, folder: Path) -> None:
    for name in ("//escaped", "../../escaped", "variables/../../escaped", "a/../../../escaped"):
        bucket.objects[PREFIX + name] = b"bad"
    fetch(bucket, folder)
    assert_whole(bucket, folder)


@pytest.mark.parametrize("link", ["checkpoint.part", "variables"])
def test_nothing_is_written_through_a_link(
    bucket: Bucket, folder: Path, tmp_path: Path, link: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("mine")
    folder.mkdir(parents=True)
    (folder / link).symlink_to(elsewhere if link == "variables" else elsewhere / "file")
    bucket.objects[PREFIX + "variables/variables.index"] = b"index"
    bucket.objects[PREFIX + "variables/variables.data-00000-of-00001"] = b"data"
    with pytest.raises(UserError, match="is a link"):
        fetch(bucket, folder)
    assert [p.name for p in elsewhere.iterdir()] == ["file"]
    assert (elsewhere / "file").read_text() == "mine"
