"""Images find their targets by name, and the pairs survive what happens to manifests."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.cli.manifest import main
from data_prep.errors import UserError
from data_prep.manifest.groups import unit_numbers
from data_prep.manifest.leaks import check_leaks
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.pairing import pair_by_name, with_target_scale
from data_prep.manifest.splits import stratified_split
from tests.data_prep.image_files import pixels, write


def tree(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        write(root / name, pixels(seed, channels=1))
    return root


def images(root: Path, *names: str) -> Manifest:
    return Manifest(tuple(Record(name) for name in names), str(root))


def test_names_match_but_for_ending_and_what_is_left_out(tmp_path: Path) -> None:
    maps = tree(tmp_path / "maps", "c1/a.png", "c1/b.png")
    np.save(maps / "c.npy", np.zeros((4, 4), np.float32))
    manifest = images(tmp_path, "sem/b_itr0.png", "sem/a_itr0.png", "sem/a_itr12.png", "c.png")
    found = pair_by_name(manifest, maps, r"_itr\d+$")
    assert [Path(file).relative_to(maps).as_posix() for file in found.target_files()] == [
        "c1/b.png", "c1/a.png", "c1/a.png", "c.npy",
    ]  # fmt: skip
    assert [record.group for record in found.records] == [
        "c1/b.png", "c1/a.png", "c1/a.png", "c.npy",
    ]  # fmt: skip


def test_an_image_without_target_is_named(tmp_path: Path) -> None:
    maps = tree(tmp_path / "maps", "a.png")
    with pytest.raises(UserError, match=r"1 of 2 images have no target in .*maps: x/b_0.png"):
        pair_by_name(images(tmp_path, "a.png", "x/b_0.png"), maps)


def test_of_equal_names_the_one_in_the_same_folder_counts(tmp_path: Path) -> None:
    maps = tree(tmp_path / "maps", "one/80/a.png", "two/80/a.png")
    found = pair_by_name(images(tmp_path, "sem/two/80/a.png", "sem/one/80/a.png"), maps)
    assert [Path(file).relative_to(maps).as_posix() for file in found.target_files()] == [
        "two/80/a.png", "one/80/a.png",
    ]  # fmt: skip
    with pytest.raises(UserError, match="2 targets have its name"):
        pair_by_name(images(tmp_path, "sem/a.png"), maps)
    with pytest.raises(UserError, match="not a regular expression"):
        pair_by_name(images(tmp_path, "sem/one/80/a.png"), maps, "(")


def test_a_scale_is_a_number_above_0_and_said_once() -> None:
    manifest = Manifest((Record("a.png", target="a.npy"),))
    scaled = with_target_scale(manifest, "0.01")
    assert scaled.records[0].target_scale == "0.01"
    assert with_target_scale(scaled, "1e-2").records[0].target_scale == "1e-2"
    for wrong in ("x", "0", "-1", "nan", "inf"):
        with pytest.raises(UserError, match="must be a number above 0"):
            with_target_scale(manifest, wrong)
    with pytest.raises(UserError, match=r"the manifest says 0\.01"):
        with_target_scale(scaled, "2")


def test_targets_and_scales_survive_a_manifest_elsewhere(tmp_path: Path) -> None:
    manifest = Manifest(
        (Record("sem/a.png", target="maps/a.png", target_scale="0.01"), Record("sem/b.png")),
        str(tmp_path / "set"),
    )
    manifest.save(tmp_path / "other" / "m.csv")
    loaded = Manifest.load(tmp_path / "other" / "m.csv")
    assert loaded.target_files() == [str(tmp_path / "set" / "maps" / "a.png"), ""]
    assert loaded.target_files() == manifest.target_files()
    assert [record.target_scale for record in loaded.records] == ["0.01", ""]
    assert loaded.sha256() == manifest.sha256()
    rescaled = with_target_scale(Manifest((Record("sem/a.png", target="maps/a.png"),)), "1")
    assert rescaled.sha256() != Manifest((Record("sem/a.png", target="maps/a.png"),)).sha256()


def test_images_of_one_target_stay_together_without_groups(tmp_path: Path) -> None:
    records = tuple(Record(f"{i}.png", target=f"maps/{i // 2}.png") for i in range(40))
    manifest = Manifest(records, str(tmp_path))
    assert (
        unit_numbers(manifest).tolist()[0:4]
        == [unit_numbers(manifest)[0]] * 2 + [unit_numbers(manifest)[2]] * 2
    )
    split = stratified_split(manifest, {"train": 0.7, "test": 0.3}, 0)
    leaks = {leak.what: leak for leak in check_leaks(split)}
    assert (leaks["target"].checked, leaks["target"].shared) == (20, 0)
    torn = Manifest(
        (
            Record("0.png", split="train", target="m.png"),
            Record("1.png", "", "test", target="m.png"),
        ),
        str(tmp_path),
    )
    found = {leak.what: leak for leak in check_leaks(torn)}["target"]
    assert (found.shared, found.example) == (1, "m.png (train), m.png (test)")
    assert "target" not in {leak.what for leak in check_leaks(Manifest((Record("a.png"),)))}


def test_the_manifest_command_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path / "sem", "c1/a_0.png", "c1/a_1.png", "c2/b_0.png")
    tree(tmp_path / "maps", "c1/a.png", "c2/b.png")

    def command(*flags: str) -> int:
        given = [f"--image_dir={tmp_path / 'sem'}", f"--target_dir={tmp_path / 'maps'}", *flags]
        return main(given)

    output = tmp_path / "m.csv"
    assert command(f"--output={output}") == 1
    assert "c1/a_0.png" in capsys.readouterr().err
    assert not output.exists()
    assert command(f"--output={output}", "--pair_by=_[01]$", "--target_scale=0.01") == 0
    loaded = Manifest.load(output)
    names = [Path(file).name for file in loaded.target_files()]
    assert names == ["a.png", "a.png", "b.png"]
    assert {record.target_scale for record in loaded.records} == {"0.01"}
    assert [record.group for record in loaded.records] == ["c1/a.png", "c1/a.png", "c2/b.png"]
