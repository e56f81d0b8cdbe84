"""Each fault that a set can have is found, and a sound set passes."""

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import parallel
from data_prep.check import files as examining
from data_prep.check.check import CheckResult, check
from data_prep.check.files import examine
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import list_folder

Make = Callable[[Path], None]


def picture(seed: int, side: int = 48) -> np.ndarray:
    """A random smooth picture that fills its frame, uint8 [side, side]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def save(folder: Path, label: str, name: str, pixels: np.ndarray) -> Path:
    file = folder / label / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Two classes of twelve unlike images of one kind."""
    folder = tmp_path / "images"
    for i in range(12):
        save(folder, "a", f"a{i}.png", picture(i))
        save(folder, "b", f"b{i}.png", picture(100 + i))
    return folder


def kinds(checked: CheckResult) -> dict[str, int]:
    return {finding.kind: finding.count for finding in checked.findings}


def test_a_sound_set_has_no_findings(sound: Path) -> None:
    assert check(list_folder(sound)).findings == ()


def test_unreadable_files_are_all_named_with_their_reason(sound: Path) -> None:
    (sound / "a" / "empty.png").touch()
    whole = (sound / "a" / "a0.png").read_bytes()
    (sound / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    # The header and the end are there; only decoding finds the damage.
    damaged = bytearray(whole)
    damaged[60:90] = b"x" * 30
    (sound / "b" / "damaged.png").write_bytes(damaged)
    (sound / "b" / "text.jpg").write_text("not an image")
    checked = check(list_folder(sound))
    (finding,) = [f for f in checked.findings if f.kind == "unreadable"]
    assert (finding.severity, finding.count) == ("serious", 4)
    named = dict(text.rstrip(")").split(" (", 1) for text in finding.examples)
    assert set(named) == {"a/empty.png", "a/cut.png", "b/damaged.png", "b/text.jpg"}
    assert named["a/empty.png"] == "empty file"
    assert "truncated" in named["a/cut.png"]
    assert checked.counts()["readable"] == 24


def test_misnamed_and_constant_images_are_found(sound: Path) -> None:
    jpeg = save(sound, "a", "really.jpg", picture(50))
    jpeg.rename(sound / "a" / "really.png")
    save(sound, "b", "blank.png", np.full((48, 48), 7, np.uint8))
    found = {f.kind: f for f in check(list_folder(sound)).findings}
    assert found["misnamed"].examples == ("a/really.png is JPEG",)
    assert found["constant"].examples == ("b/blank.png",)
    assert found["constant"].severity == "serious"


def split_set(folder: Path) -> Path:
    for split, start in (("train", 0), ("test", 100)):
        for i in range(12):
            save(folder / split, "a", f"{i}.png", picture(start + i))
            save(folder / split, "b", f"{i}.png", picture(start + 50 + i))
    return folder


@pytest.mark.parametrize(
    ("source", "target", "kind", "severity"),
    [
        ("train/a/0.png", "test/a/copy.png", "identical_splits", "serious"),
        ("train/a/0.png", "train/b/copy.png", "identical_classes", "serious"),
        ("train/a/0.png", "train/a/copy.png", "identical_within", "warning"),
        ("train/a/0.png", "test/a/copy.jpg", "near_splits", "serious"),
        ("train/a/0.png", "train/b/copy.jpg", "near_classes", "warning"),
        ("train/a/0.png", "train/a/copy.jpg", "near_within", "note"),
    ],
)
def test_copies_are_found_and_judged_by_where_they_lie(
    tmp_path: Path, source: str, target: str, kind: str, severity: str
) -> None:
    folder = split_set(tmp_path / "images")
    if target.endswith(".jpg"):
        with Image.open(folder / source) as image:
            image.save(folder / target, quality=90)
    else:
        shutil.copy(folder / source, folder / target)
    (finding,) = [f for f in check(list_folder(folder)).findings if f.count == 1]
    assert (finding.kind, finding.severity) == (kind, severity)
    assert finding.examples in ((f"{source} = {target}",), (f"{target} = {source}",))


def color_in_one_class(folder: Path) -> None:
    for file in (folder / "b").iterdir():
        with Image.open(file) as image:
            color = image.convert("RGB")
        color.save(file)


def other_size_in_one_class(folder: Path) -> None:
    for i, file in enumerate(sorted((folder / "b").iterdir())):
        Image.fromarray(picture(100 + i, 52)).save(file)


def jpeg_in_one_class(folder: Path) -> None:
    for file in list((folder / "b").iterdir()):
        with Image.open(file) as image:
            image.save(file.with_suffix(".jpg"), quality=90)
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "feature"),
    [
        (color_in_one_class, "channels"),
        (other_size_in_one_class, "width"),
        (jpeg_in_one_class, "format"),
    ],
)
def test_files_that_tell_the_class_are_serious(sound: Path, spoil: Make, feature: str) -> None:
    spoil(sound)
    (finding,) = [f for f in check(list_folder(sound)).findings if f.kind == "header_tells"]
    assert finding.severity == "serious"
    assert finding.title.startswith(f"the {feature} of the file alone tells the class: balanced")
    assert "1.00, chance 0.50" in finding.title


def test_sizes_that_do_not_depend_on_the_class_are_no_giveaway(sound: Path) -> None:
    for label, start in (("a", 0), ("b", 100)):
        for i in range(0, 12, 2):
            save(sound, label, f"{label}{i}.png", picture(start + i, 60))
    assert kinds(check(list_folder(sound))) == {"sizes": 24}


def test_margins_give_the_box_to_cut_out(tmp_path: Path) -> None:
    for i in range(24):
        framed = np.full((100, 120), 255, np.uint8)
        framed[20:68, 30:78] = picture(i) // 2
        save(tmp_path, "ab"[i % 2], f"{i}.png", framed)
    found = {f.kind: f for f in check(list_folder(tmp_path)).findings}
    assert found["margins"].title == "24 images with white margins"
    assert "columns 30 to 78 and rows 20 to 68 of 120 x 100" in found["margins"].text


def test_the_ringing_of_a_jpeg_does_not_widen_the_box(tmp_path: Path) -> None:
    for i in range(24):
        framed = np.full((100, 120), 255, np.uint8)
        framed[21:68, 29:78] = picture(i)[:47, : 49 - 1].repeat(2, axis=1)[:, :49] // 4
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(framed).save(tmp_path / "ab"[i % 2] / f"{i}.jpg", quality=75)
    found = {f.kind: f for f in check(list_folder(tmp_path)).findings}
    assert "columns 29 to 78 and rows 21 to 68 of 120 x 100" in found["margins"].text


def test_a_soft_background_is_no_margin(tmp_path: Path) -> None:
    slope = np.linspace(190, 214, 96)
    for i in range(24):
        soft = np.broadcast_to(slope[:, np.newaxis], (96, 96)).copy()
        soft[30:66, 30:66] = picture(i, 36) / 2
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        file = tmp_path / "ab"[i % 2] / f"{i}.jpg"
        Image.fromarray(soft.astype(np.uint8)).save(file, quality=95)
    assert "margins" not in kinds(check(list_folder(tmp_path)))


@pytest.mark.parametrize(
    "error",
    [
        Image.DecompressionBombError("too\nmany pixels"),
        MemoryError(),
        KeyError("table"),
        RuntimeError("wrong B-tree signature"),
    ],
)
def test_whatever_a_decoder_raises_is_a_finding(
    sound: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    read = examining.read_header

    def fail(file: str, *rest: str) -> object:
        if file.endswith("a3.png"):
            raise error
        return read(file, *rest)

    monkeypatch.setattr(examining, "read_header", fail)
    checked = check(list_folder(sound))
    (finding,) = checked.findings
    assert (finding.kind, finding.count) == ("unreadable", 1)
    said = "too many pixels" if "too" in str(error) else str(error) or "MemoryError"
    assert finding.examples == (f"a/a3.png (cannot be decoded ({said}))",)


def test_a_picture_that_claims_to_be_huge_does_not_end_the_check(sound: Path) -> None:
    whole = bytearray((sound / "a" / "a0.png").read_bytes())
    whole[16:24] = struct.pack(">II", 60_000, 60_000)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    (sound / "b" / "huge.png").write_bytes(whole)
    found = kinds(check(list_folder(sound)))
    assert found["unreadable"] == 1


def test_few_and_uneven_classes_are_warned_of(sound: Path) -> None:
    for i in range(3):
        save(sound, "c", f"{i}.png", picture(200 + i))
    found = {f.kind: f for f in check(list_folder(sound)).findings}
    assert found["few"].examples == ("c: 3",)
    assert found["uneven"].title == "the largest class has 4.0 times the smallest"


def test_names_that_speak_of_groups_are_noticed_unless_the_manifest_has_groups(
    tmp_path: Path,
) -> None:
    for i in range(24):
        save(tmp_path, "ab"[i % 2], f"field{i // 4:02d}_cell{i}.png", picture(i))
    manifest = list_folder(tmp_path)
    assert kinds(check(manifest))["groups"] == 24
    grouped = tuple(replace(r, group=r.path.split("_")[0]) for r in manifest.records)
    assert "groups" not in kinds(check(Manifest(grouped, manifest.root)))


def test_processes_find_what_threads_find(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sound / "a" / "empty.png").touch()
    manifest = list_folder(sound)
    by_threads = examine(manifest)
    monkeypatch.setattr(parallel, "_MANY", 1)
    by_processes = examine(manifest)
    assert by_processes.facts == by_threads.facts
    assert by_processes.content == by_threads.content
    np.testing.assert_array_equal(by_processes.looks.hashes, by_threads.looks.hashes)
    np.testing.assert_array_equal(by_processes.looks.thumbnails, by_threads.looks.thumbnails)


def test_the_json_holds_counts_and_findings(sound: Path) -> None:
    shutil.copy(sound / "a" / "a0.png", sound / "b" / "copy.png")
    content = json.loads(check(list_folder(sound)).to_json())
    assert content["images"] == 25
    assert content["classes"] == {"a": {"no split": 12}, "b": {"no split": 13}}
    assert content["modes"] == {"grey, 8 bit": 25}
    assert [f["kind"] for f in content["findings"]] == ["identical_classes"]


def test_groups_in_two_splits_are_serious(tmp_path: Path) -> None:
    manifest = list_folder(split_set(tmp_path / "images"))
    assert check(manifest).findings == ()
    torn = Manifest(
        tuple(replace(r, group=f"core{i % 30}") for i, r in enumerate(manifest.records)),
        manifest.root,
    )
    (finding,) = check(torn).findings
    assert (finding.kind, finding.severity, finding.count) == ("group_splits", "serious", 18)
