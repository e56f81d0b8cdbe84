import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.augment.copies import CopyPlan, copy_pixels, write_copies
from data_prep.errors import UserError
from data_prep.manifest.groups import unit_numbers
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.scan import check_images, scan_folder
from data_prep.reading.images import read_image, read_stored
from tests.data_prep.augment.common import noise
from tests.data_prep.image_files import pixels, write, write_tiff

ROOT = Path(__file__).parents[3]
FLIPS = CopyPlan(("hflip", "vflip", "rot180"))
RANDOM = CopyPlan(("hflip", "rotate", "stronger"), copies=2, seed=3)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SPLIT/CLASS/FILE with 3 + 2 training images, 2 for validation and 1 for test."""
    root = tmp_path_factory.mktemp("tree")
    places = ["train/a/0.png", "train/a/1.jpg", "train/a/2.png", "train/b/3.png", "train/b/4.png",
              "val/a/5.png", "val/b/6.png", "test/a/7.png"]  # fmt: skip
    for number, place in enumerate(places):
        write(root / place, pixels(number, 20, 26))
    return root


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_only_training_images_get_copies_and_all_are_there(tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = write_copies(scan_folder(tree), output, FLIPS)
    assert check_images(Manifest.load(output / "manifest.csv")).records == result.records
    again = scan_folder(output)
    found = {(record.path, record.label, record.split) for record in again.records}
    assert found == {(record.path, record.label, record.split) for record in result.records}
    assert len(result) == 8 + 3 * 5
    assert [record.path for record in result.split("validation").records] == [
        "validation/a/5.png",
        "validation/b/6.png",
    ]
    assert len(result.split("test")) == 1
    assert (output / "train/a/1.jpg").samefile(tree / "train/a/1.jpg")
    assert sorted(os.listdir(output / "train/b")) == [
        "3.png",
        "3_aug00_hflip.png",
        "3_aug01_vflip.png",
        "3_aug02_rot180.png",
        "4.png",
        "4_aug00_hflip.png",
        "4_aug01_vflip.png",
        "4_aug02_rot180.png",
    ]
    assert digests(tree).items() <= {
        (name.replace("validation/", "val/"), digest) for name, digest in digests(output).items()
    }
    assert os.listdir(tmp_path) == ["out"]


def test_flips_are_bit_for_bit_those_of_numpy(tree: Path, tmp_path: Path) -> None:
    write_copies(scan_folder(tree), tmp_path / "out", FLIPS)
    for name in ("train/a/1.jpg", "train/b/4.png"):
        image = read_image(str(tree / name))
        stem = str(tmp_path / "out" / name).rpartition(".")[0]
        np.testing.assert_array_equal(read_image(f"{stem}_aug00_hflip.png"), image[:, ::-1])
        np.testing.assert_array_equal(read_image(f"{stem}_aug01_vflip.png"), image[::-1])
        np.testing.assert_array_equal(read_image(f"{stem}_aug02_rot180.png"), image[::-1, ::-1])


def test_copies_belong_to_the_group_of_their_image(tree: Path, tmp_path: Path) -> None:
    manifest = scan_folder(tree)
    records = [
        replace(record, group="core 1", case="wet", sha256="0" * 64)
        if record.path == "train/a/0.png"
        else record
        for record in manifest.records
    ]
    result = write_copies(manifest.subset(records), tmp_path / "out", FLIPS)
    groups = {record.path: record.group for record in result.records}
    assert groups["train/a/0_aug01_vflip.png"] == groups["train/a/0.png"] == "core 1"
    assert groups["train/b/3_aug01_vflip.png"] == groups["train/b/3.png"] == "train/b/3.png"
    assert groups["validation/a/5.png"] == ""
    assert unit_numbers(result).max() + 1 == 8
    copy = next(r for r in result.records if r.path == "train/a/0_aug01_vflip.png")
    content = (tmp_path / "out" / copy.path).read_bytes()
    assert (copy.case, copy.sha256) == ("wet", hashlib.sha256(content).hexdigest())
    assert {r.sha256 for r in result.records if r.path.startswith("train/b")} == {""}


@pytest.mark.slow
def test_order_threads_and_the_rest_of_the_set_do_not_matter(tree: Path, tmp_path: Path) -> None:
    manifest = scan_folder(tree)
    write_copies(manifest, tmp_path / "one", RANDOM, workers=1)
    write_copies(manifest.subset(manifest.records[::-1]), tmp_path / "two", RANDOM, workers=3)
    one, two = digests(tmp_path / "one"), digests(tmp_path / "two")
    for said in ("manifest.csv", ".complete.json"):  # what was asked for, in its order
        one.pop(said), two.pop(said)
    assert one == two
    images = {name: digest for name, digest in one.items() if "_aug" in name}
    assert len(set(images.values())) == len(images) == 5 * 5
    more = CopyPlan(("stronger", "vflip", "rotate"), copies=3, seed=3)
    write_copies(manifest, tmp_path / "more", more)
    other = {digest: name for name, digest in digests(tmp_path / "more").items() if "_aug" in name}
    kept = [other.get(digest, "") for name, digest in images.items() if "hflip" not in name]
    assert all(kept)  # the same copies, under other numbers
    write_copies(manifest, tmp_path / "seed", replace(RANDOM, seed=4))
    different = digests(tmp_path / "seed")
    assert not {d for n, d in images.items() if "hflip" not in n} & set(different.values())


def test_copies_are_a_function_of_image_and_seed(tree: Path, tmp_path: Path) -> None:
    write_copies(scan_folder(tree), tmp_path / "out", RANDOM)
    stored = read_stored(str(tree / "train/b/3.png"))
    expected = copy_pixels(stored, "stronger", 1, "/train/b/3.png", 3)
    found = read_image(str(tmp_path / "out/train/b/3_aug04_stronger.png"))
    np.testing.assert_array_equal(found, expected)


def test_a_killed_call_goes_on_to_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from data_prep.augment import copies\n"
        "from data_prep.augment.copies import CopyPlan\n"
        "from data_prep.augment.copies import write_copies\n"
        "from data_prep.manifest.scan import scan_folder\n"
        "written = copies._write\n"
        "def once(path, ending, content, seen=[]):\n"
        "    seen.append(1)\n"
        "    len(seen) > 6 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return written(path, ending, content)\n"
        "copies._write = once\n"
        f"write_copies(scan_folder({str(tree)!r}), {str(tmp_path / 'out')!r},"
        " CopyPlan(('hflip', 'vflip', 'rot180')), workers=1)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == [".out.partial"]
    before = {
        path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*_aug*") if path.is_file()
    }
    assert len(before) == 6
    time.sleep(0.01)
    write_copies(scan_folder(tree), tmp_path / "out", FLIPS)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*_aug*")}
    assert before.items() <= after.items()
    write_copies(scan_folder(tree), tmp_path / "other", FLIPS)
    assert digests(tmp_path / "out") == digests(tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


def test_names_never_meet(tmp_path: Path) -> None:
    for number, name in enumerate(["x.png", "x.jpg", "X.bmp", "x_aug00_hflip.png"]):
        write(tmp_path / "set/train/a" / name, pixels(number, 20, 26))
    result = write_copies(scan_folder(tmp_path / "set"), tmp_path / "out", CopyPlan(("hflip",)))
    names = [record.path for record in result.records]
    assert len({name.casefold() for name in names}) == len(names) == 8
    assert len(list((tmp_path / "out/train/a").iterdir())) == 8
    for original, copy in zip(result.records[:4], result.records[4:], strict=True):
        image = read_image(str(tmp_path / "out" / original.path))
        flipped = read_image(str(tmp_path / "out" / copy.path))
        np.testing.assert_array_equal(flipped, image[:, ::-1])


def test_tiles_pages_and_rules_of_reading(tmp_path: Path) -> None:
    """Copies are files of their own, read by what still holds; the images stay where they are."""
    stack = noise(1, (3, 12, 10), np.float32) * 100
    np.save(tmp_path / "s.npy", stack)
    write(tmp_path / "p.png", noise(2, (16, 20)))
    reading = "axes=NHW;intensity=minmax"
    manifest = Manifest(
        (
            Record("s.npy", "a", "train", reading=f"page=1;{reading}"),
            Record("s.npy", "a", "train", reading=f"page=2;{reading}"),
            Record("p.png", "b", "train", tile="0,0,8,8", group="p"),
            Record("p.png", "b", "train", tile="8,4,12,6", group="p"),
        ),
        str(tmp_path),
    )
    result = write_copies(manifest, tmp_path / "out", CopyPlan(("vflip", "rotate")))
    assert [r.path for r in result.records[:4]] == manifest.files()[:4]
    assert not list((tmp_path / "out").rglob("s.npy"))
    assert [r.path for r in result.records[4:]] == [
        "train/a/s_p1_aug00_vflip.npy",
        "train/a/s_p1_aug01_rotate.npy",
        "train/a/s_p2_aug00_vflip.npy",
        "train/a/s_p2_aug01_rotate.npy",
        "train/b/p_x0_y0_aug00_vflip.png",
        "train/b/p_x0_y0_aug01_rotate.png",
        "train/b/p_x8_y4_aug00_vflip.png",
        "train/b/p_x8_y4_aug01_rotate.png",
    ]
    files = result.files()
    for copy, original in ((4, 0), (6, 1), (8, 2), (10, 3)):
        one, other = result.records[copy], result.records[original]
        assert (one.tile, one.group) == ("", other.group)
        np.testing.assert_array_equal(
            read_image(files[copy], None, one.reading),
            read_image(files[original], None, other.reading, other.tile)[::-1],
        )
    assert [r.group for r in result.records[:2]] == ["s.npy, page 1", "s.npy, page 2"]


def test_deep_files_keep_their_depth(tmp_path: Path) -> None:
    deep = noise(1, (9, 11)).astype(np.uint16) * 257
    write(tmp_path / "set/train/a/g.png", deep)
    bands = noise(2, (9, 11, 4)).astype(np.uint16) * 200
    write_tiff(
        tmp_path / "set/train/a/n.tif", bands, photometric="minisblack", planarconfig="contig"
    )
    manifest = scan_folder(tmp_path / "set")
    write_copies(manifest, tmp_path / "out", CopyPlan(("rot90", "rotate", "contrast")))
    found = {path.name: read_stored(str(path)) for path in (tmp_path / "out/train/a").iterdir()}
    assert {pixels.dtype.name for pixels in found.values()} == {"uint16"}
    np.testing.assert_array_equal(found["g_aug00_rot90.png"][..., 0], np.rot90(deep))
    np.testing.assert_array_equal(found["n_aug00_rot90.tif"], np.rot90(bands))
    with Image.open(tmp_path / "out/train/a/g_aug01_rotate.png") as image:
        assert image.mode == "I;16"


@pytest.mark.parametrize("mode", ["symlink", "copy", "list"])
def test_how_the_images_get_there(tree: Path, tmp_path: Path, mode: str) -> None:
    result = write_copies(scan_folder(tree), tmp_path / "out", CopyPlan(("hflip",)), mode)
    loaded = Manifest.load(tmp_path / "out" / "manifest.csv")
    assert loaded.records == result.records
    for record, file in zip(loaded.records[:8], loaded.files(), strict=False):
        inside = file.startswith(str(tmp_path / "out"))
        assert inside == (mode != "list")
        assert os.path.islink(file) == (mode == "symlink")
        with open(file, "rb") as stream:
            content = stream.read()
        name = record.path.replace("validation/", "val/") if inside else record.path
        assert content == (tree / name).read_bytes()


def manifest_of(tree: Path, **changes: str) -> Manifest:
    found = scan_folder(tree)
    return found.subset(replace(record, **changes) for record in found.records)


@pytest.mark.parametrize(
    ("changes", "plan", "said"),
    [
        ({"split": ""}, FLIPS, "have no splits, .* make one first with simclr-split"),
        ({"split": "fold"}, FLIPS, "no split named train .but fold., .*simclr-split"),
        ({"target": "x.png"}, FLIPS, r"train/a/0.png has a target image"),
        ({"label": "../a"}, FLIPS, "the class '../a' cannot be the name of a folder"),
    ],
)
def test_sets_that_must_not_be_augmented_are_named(
    tree: Path, tmp_path: Path, changes: dict[str, str], plan: CopyPlan, said: str
) -> None:
    for mode in ("hardlink", "list"):
        with pytest.raises(UserError, match=said):
            write_copies(manifest_of(tree, **changes), tmp_path / "out", plan, mode)
    assert os.listdir(tmp_path) == []


def test_an_operation_that_does_not_fit_is_named_with_the_file(tmp_path: Path) -> None:
    write(tmp_path / "set/train/a/g.png", noise(1, (9, 9)))
    manifest = scan_folder(tmp_path / "set")
    with pytest.raises(UserError, match=r"hue needs RGB images, and .*g\.png has 1 channels"):
        write_copies(manifest, tmp_path / "out", CopyPlan(("hflip", "hue")))
    np.save(tmp_path / "set/train/a/h.npy", noise(1, (9, 9)).astype(np.float32))
    manifest = scan_folder(tmp_path / "set", reading="intensity=minmax")
    with pytest.raises(UserError, match=r"h\.npy: noise changes grey levels"):
        write_copies(manifest, tmp_path / "out", CopyPlan(("hflip", "noise")))
    assert os.listdir(tmp_path) == ["set"]


def test_damage_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"set/train/a/{number}.png", pixels(number))
    manifest = scan_folder(tmp_path / "set")
    damaged = tmp_path / "set/train/a/1.png"
    content = bytearray(damaged.read_bytes())
    content[60:90] = bytes(30)
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=r"1\.png: cannot be decoded"):
        write_copies(manifest, tmp_path / "out", FLIPS)
    assert os.listdir(tmp_path) == ["set"]


def test_a_full_output_is_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(UserError, match="is not empty"):
        write_copies(scan_folder(tree), tmp_path, FLIPS)
    assert os.listdir(tmp_path) == ["mine"]


def test_augmenting_twice_is_noticed(tree: Path, tmp_path: Path, caplog) -> None:
    write_copies(scan_folder(tree), tmp_path / "one", CopyPlan(("hflip",)))
    assert "already" not in caplog.text
    write_copies(scan_folder(tmp_path / "one"), tmp_path / "two", CopyPlan(("vflip",)))
    assert "5 training images are augmented copies already" in caplog.text


@pytest.mark.parametrize(("values", "said"), [({"copies": 0}, "copies=0"), ({"seed": -1}, "seed")])
def test_impossible_plans_are_named(values: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        CopyPlan(("hflip",), **values)


def test_the_manifest_is_a_plain_table(tree: Path, tmp_path: Path) -> None:
    write_copies(scan_folder(tree), tmp_path / "out", CopyPlan(("hflip",)))
    with open(tmp_path / "out" / "manifest.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[8] == {
        "path": "train/a/0_aug00_hflip.png",
        "label": "a",
        "split": "train",
        "group": "train/a/0.png",
        "case": "",
        "target": "",
    }


def test_parts_of_a_file_with_one_name_keep_copies_of_their_own(tmp_path: Path) -> None:
    """Tiles that share a corner, and arrays of one file: no copy stands for two of them."""
    write(tmp_path / "p.png", noise(2, (16, 20)))
    one, two = noise(3, (2, 8, 9))
    np.savez(tmp_path / "s.npz", one=one, two=two)
    manifest = Manifest(
        (
            Record("p.png", "a", "train", tile="0,0,8,8"),
            Record("p.png", "a", "train", tile="0,0,12,12"),
            Record("s.npz", "b", "train", reading="array=one"),
            Record("s.npz", "b", "train", reading="array=two"),
        ),
        str(tmp_path),
    )
    result = write_copies(manifest, tmp_path / "out", CopyPlan(("vflip",)))
    assert len({record.path for record in result.records[4:]}) == 4
    files = result.files()
    for copy, original in zip(result.records[4:], range(4), strict=True):
        record = result.records[original]
        np.testing.assert_array_equal(
            read_image(str(tmp_path / "out" / copy.path), None, copy.reading),
            read_image(files[original], None, record.reading, record.tile)[::-1],
        )
