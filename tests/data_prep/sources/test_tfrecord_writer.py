"""Shards: the same bytes however they come about, and nothing lost when a writer dies."""

import fcntl
import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.read_options import declaration_of
from data_prep.manifest.scan import scan_folder
from data_prep.manifest.splits import stratified_split
from data_prep.sources import tfrecord_writer
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.streams import TFRecordSource
from data_prep.sources.tfrecord import damaged_shards, read_declaration, read_facts
from data_prep.sources.tfrecord_writer import write_shards
from tests.data_prep.image_files import pixels, write, write_class_folders, write_tiff


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """26 images: 20 to train on, 6 to test with."""
    write_class_folders(tmp_path / "images", {"a": 12, "b": 14}, channels=3)
    return stratified_split(scan_folder(tmp_path / "images"), {"train": 0.77, "test": 0.23}, seed=0)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def features(folder: Path) -> list[dict[str, list[bytes] | list[int]]]:
    """Every record, as any other program would parse it."""
    found = []
    for file in sorted(folder.glob("*.tfrecord")):
        for serialized in tf.data.TFRecordDataset(str(file)):
            example = tf.train.Example.FromString(serialized.numpy())
            found.append(
                {
                    name: list(value.bytes_list.value or value.int64_list.value)
                    for name, value in example.features.feature.items()
                }
            )
    return found


def test_bytes_do_not_depend_on_the_number_of_workers(manifest: Manifest, tmp_path: Path) -> None:
    for workers in (1, 5):
        write_shards(manifest, tmp_path / str(workers), 4, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "5")


def test_dataset_json_holds_the_checksum_of_every_shard(manifest: Manifest, tmp_path: Path) -> None:
    facts = write_shards(manifest, tmp_path / "out", 3)
    names, read = read_facts(tmp_path / "out")
    assert (names, read) == (("a", "b"), facts)
    assert [shard.num_examples for shard in facts["train"].shards] == [7, 7, 6]
    for shard in facts["train"].shards + facts["test"].shards:
        written = (tmp_path / "out" / shard.file).read_bytes()
        assert len(written) == shard.num_bytes
        assert hashlib.sha256(written).hexdigest() == shard.sha256


def test_shards_have_about_the_size_asked_for(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 60), dtype=np.uint8)
    for number, image in enumerate(noise):
        write(tmp_path / "images" / f"{number}.png", image)  # about 3 kB each
    facts = write_shards(scan_folder(tmp_path / "images"), tmp_path / "out", shard_mb=0.02)
    sizes = [shard.num_bytes for shard in facts["all"].shards]
    assert len(sizes) == 6
    assert 18_000 < min(sizes) <= max(sizes) < 26_000


_KILLED_WRITER = """
import os, signal, sys
from data_prep.manifest.scan import scan_folder
from data_prep.sources.tfrecord_writer import write_shards

def progress(done, total):
    if done == 17:
        os.kill(os.getpid(), signal.SIGKILL)

write_shards(scan_folder(sys.argv[1]), sys.argv[2], 5, workers=2, progress=progress)
"""


@pytest.mark.slow
def test_a_killed_writer_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "images", {"a": 12, "b": 14})
    manifest = scan_folder(tmp_path / "images")
    write_shards(manifest, tmp_path / "whole", 5)
    killed = [sys.executable, "-c", _KILLED_WRITER, tmp_path / "images", tmp_path / "out"]
    assert subprocess.run(killed, capture_output=True, check=False).returncode == -9
    assert not (tmp_path / "out").exists()
    work = tmp_path / ".out.partial"
    finished = {path.name: path.stat().st_ino for path in (work / "content").iterdir()}
    assert 2 <= len(finished) <= 3
    assert list(work.glob("*.part"))  # what it was at

    write_shards(manifest, tmp_path / "out", 5)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    kept = {name: (tmp_path / "out" / name).stat().st_ino for name in finished}
    assert kept == finished  # the very files, not written again
    assert not work.exists()


def test_a_finished_shard_that_has_been_damaged_since_is_written_again(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(manifest, tmp_path / "whole", 3)
    work = interrupted(manifest, tmp_path / "out", after=19, monkeypatch=monkeypatch)
    shard = min((work / "content").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    write_shards(manifest, tmp_path / "out", 3)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def interrupted(
    manifest: Manifest, output: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Writes 3 shards until Ctrl-C comes; returns the folder with what is finished."""

    def progress(done: int, total: int) -> None:
        if done > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(manifest, output, 3, workers=1, progress=progress)
    return output.with_name(f".{output.name}.partial")


def test_what_another_command_or_other_images_left_is_not_used(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = interrupted(manifest, tmp_path / "out", after=19, monkeypatch=monkeypatch)
    assert any((work / "content").iterdir())
    write(Path(manifest.files()[0]), pixels(99))
    write_shards(manifest, tmp_path / "whole", 3)
    write_shards(manifest, tmp_path / "out", 3)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    interrupted(manifest, tmp_path / "new", after=19, monkeypatch=monkeypatch)
    write_shards(manifest, tmp_path / "new", 2)
    assert len(list((tmp_path / "new").glob("train-*-of-00002.tfrecord"))) == 2
    assert not list((tmp_path / "new").glob("*-of-00003*"))


def test_two_writers_of_one_set_do_not_meet(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    with open(tmp_path / ".out.partial" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is writing"):
            write_shards(manifest, tmp_path / "out", 2)
    write_shards(manifest, tmp_path / "out", 2)


def test_a_finished_set_is_not_overwritten(manifest: Manifest, tmp_path: Path) -> None:
    facts = write_shards(manifest, tmp_path / "out", 2)
    before = contents(tmp_path / "out")
    assert write_shards(manifest, tmp_path / "out", 2) == facts, "it is complete"
    with pytest.raises(UserError, match="out is not empty"):
        write_shards(manifest, tmp_path / "out", 1)
    assert contents(tmp_path / "out") == before


def test_records_keep_all_that_the_manifest_says(tmp_path: Path) -> None:
    write(tmp_path / "sem" / "1.png", pixels(1, channels=1))
    depth = write(tmp_path / "depth" / "1.png", pixels(2, channels=1))
    record = Record("sem/1.png", "a", "train", group="wafer 7", case="2", target="depth/1.png")
    write_shards(Manifest((record,), str(tmp_path)), tmp_path / "out", 1)
    (found,) = features(tmp_path / "out")
    assert found == {
        "image/encoded": [(tmp_path / "sem" / "1.png").read_bytes()],
        "image/filename": [b"sem/1.png"],
        "image/index": [0],
        "image/height": [12],
        "image/width": [16],
        "image/channels": [1],
        "image/decoder": [0],
        "image/class/label": [0],
        "image/class/text": [b"a"],
        "image/group": [b"wafer 7"],
        "image/case": [b"2"],
        "image/target/filename": [b"depth/1.png"],
        "image/target/encoded": [depth.read_bytes()],
    }


@pytest.fixture
def declared(tmp_path: Path) -> Manifest:
    """Tiles, pages and arrays, 8 bits and more, with and without rules."""
    root = tmp_path / "declared"
    write(root / "whole.png", pixels(1))
    write(root / "large.png", pixels(2, 30, 40))
    write(root / "large.jpg", pixels(3, 40, 60), quality=95)
    pages = np.stack([pixels(s, channels=1) for s in (4, 5, 6)])
    write_tiff(root / "stack.tif", pages, photometric="minisblack")
    counts = np.random.default_rng(0).poisson(40, (3, 12, 16)).astype(np.float32)
    np.save(root / "stack.npy", counts)
    records = (
        Record("whole.png", "a"),
        Record("large.png", "a", tile="3,4,16,12"),
        Record("large.png", "b", tile="20,10,16,12"),
        Record("large.jpg", "b", tile="8,8,24,16"),
        Record("large.jpg", "b", tile="21,13,16,12"),
        Record("stack.tif", "a", reading="page=2"),
        Record("whole.png", "b", reading="intensity=minmax"),
        Record("stack.npy", "b", reading="axes=NHW;page=1;intensity=percentile(1,99)"),
    )
    return Manifest(records, str(root))


@pytest.mark.parametrize("eight_bits", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_of_shards_equal_those_of_the_files(
    declared: Manifest, tmp_path: Path, eight_bits: bool, channels: int
) -> None:
    some = declared.subset(declared.records[:6]) if eight_bits else declared
    files = ManifestSource(some, channels=channels, cache="false")
    write_shards(some, tmp_path / "out", 2)
    shards = TFRecordSource(tmp_path / "out", channels=channels)
    assert shards.image_dtype == files.image_dtype == (tf.uint8 if eight_bits else tf.float32)
    read = []
    for source in (files, shards):
        elements = source.elements(seed=3, shuffle=True, start=4, batch_size=4).take(20)
        read.append([(e["index"], e["epoch"], e["label"], source.decode(e)) for e in elements])
    for from_files, from_shards in zip(*read, strict=True):
        assert from_files[:3] == from_shards[:3]
        # Luma of colour that has been decoded is rounded once more than that of a JPEG file.
        one_bit = 1 if eight_bits else 1 / 255 + 1e-6
        tolerance = one_bit if channels == 1 else 0
        difference = tf.cast(from_files[3], tf.float32) - tf.cast(from_shards[3], tf.float32)
        assert np.abs(difference).max() <= tolerance, from_files[0]


def test_a_stack_is_not_stored_once_for_every_page(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 256, (50, 12, 16), dtype=np.uint8)
    np.save(tmp_path / "stack.npy", stack)
    pages = tuple(Record("stack.npy", reading=f"axes=NHW;page={page}") for page in range(50))
    facts = write_shards(Manifest(pages, str(tmp_path)), tmp_path / "out", 1)
    assert facts["all"].encoded_bytes < 5 * stack.nbytes
    assert {tuple(f["image/reading"]) for f in features(tmp_path / "out")} == {
        (page.reading.encode(),) for page in pages
    }


def test_shards_tell_how_new_files_are_read(declared: Manifest, tmp_path: Path) -> None:
    one_rule = declared.subset(declared.records[7:])
    write_shards(one_rule, tmp_path / "one", 1)
    assert read_declaration(tmp_path / "one") == declaration_of(one_rule)
    write_shards(declared, tmp_path / "several", 1)
    with pytest.raises(UserError, match="made by different intensity rules"):
        read_declaration(tmp_path / "several")


def test_an_image_that_vanishes_is_one_line(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = manifest.files()[5]

    def remove(*arguments: object) -> object:
        Path(gone).unlink()
        return plan(*arguments)

    plan = tfrecord_writer._plan
    monkeypatch.setattr(tfrecord_writer, "_plan", remove)
    with pytest.raises(UserError, match=r"\.png: No such file or directory"):
        write_shards(manifest, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


def test_a_missing_target_is_one_line(manifest: Manifest, tmp_path: Path) -> None:
    paired = manifest.subset(replace(record, target="no.png") for record in manifest.records)
    with pytest.raises(UserError, match=r"no\.png: No such file"):
        write_shards(paired, tmp_path / "out", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_damaged_shards_are_named(manifest: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    facts = write_shards(manifest, folder, 3)["train"]
    assert damaged_shards(folder, facts.shards) == {}
    first, second, third = (folder / file for file in facts.files)
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    assert damaged_shards(folder, facts.shards) == {
        first.name: "its bytes have changed (SHA-256 differs)"
    }
    # A size that is right is not looked behind when the set is opened; reading says which it was.
    source = TFRecordSource(folder, "train")
    with pytest.raises(tf.errors.DataLossError):
        list(source.elements(seed=0, shuffle=False, start=0, batch_size=1))
    assert f"{first.name} (its bytes have changed" in str(source.diagnose())
    second.write_bytes(second.read_bytes()[:-7])
    third.unlink()
    assert list(damaged_shards(folder, facts.shards)) == list(facts.files)
    with pytest.raises(UserError, match=rf"{second.name} \(\d+ bytes .*{third.name} \(missing\)"):
        TFRecordSource(folder, "train")
