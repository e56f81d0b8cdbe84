"""What holds for every kind of synthetic set."""

import csv
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.synthetic.kinds import KINDS, find_kind
from data_prep.synthetic.sample import NPY, Parameters, Request, encode, to_levels
from data_prep.synthetic.write import write_set

every_kind = pytest.mark.parametrize("name", list(KINDS))
SMALL = {"lattice": (16, 16), "lensing": (16, 16), "core": (24, 16)}


def make(folder: Path, name: str, count: int, **changes: object) -> dict[str, str]:
    """Writes a small set; hashes of its files by name."""
    request: dict = {"seed": 3, "image_size": SMALL.get(name, (24, 20)), **changes}
    write_set(name, folder, images_per_class=count, **request)
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def pictures(hashes: dict[str, str]) -> set[str]:
    return {file for file in hashes if not file.endswith(".csv")}


def test_there_are_five_kinds() -> None:
    assert list(KINDS) == ["lattice", "lensing", "rheed", "sem_depth", "core"]
    with pytest.raises(UserError, match="no kind 'lens'; there are lattice, lensing"):
        find_kind("lens")


@every_kind
def test_the_same_seed_gives_the_same_bytes_and_a_larger_set_begins_alike(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = make(tmp_path / "a", name, 2), make(tmp_path / "d", name, 2, seed=4)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert make(tmp_path / "b", name, 2) == first  # whatever the number of threads
    more = make(tmp_path / "c", name, 3)
    assert len(pictures(more)) == len(pictures(first)) * 3 / 2
    for file in pictures(first):
        assert more[file] == first[file]
        assert other[file] != first[file]
    assert len({first[file] for file in pictures(first)}) == len(pictures(first))


@every_kind
def test_some_classes_alone_are_those_of_the_whole_set(tmp_path: Path, name: str) -> None:
    last = list(KINDS[name].classes)[-1]
    whole, alone = make(tmp_path / "a", name, 1), make(tmp_path / "b", name, 1, classes=[last])
    assert pictures(alone)
    assert {file: whole[file] for file in pictures(alone)} == {
        file: alone[file] for file in pictures(alone)
    }


@every_kind
def test_manifest_and_table_name_every_picture(tmp_path: Path, name: str) -> None:
    files = pictures(make(tmp_path / "set", name, 2))
    manifest = Manifest.load(tmp_path / "set" / "manifest.csv")
    assert set(manifest.class_names) == set(KINDS[name].classes)
    with (tmp_path / "set" / "parameters.csv").open() as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    targets = {record.target for record in manifest.records} - {""}
    assert set(rows) | targets == files
    for record in manifest.records:
        assert rows[record.path]["class_name"] == record.label
    # What a class does not have is 0, not empty; only lists of masses may be empty.
    empty = {key for row in rows.values() for key, value in row.items() if value in {"", None}}
    assert empty <= {"substructure"}


@every_kind
def test_settings_are_explained_and_their_defaults_allowed(name: str) -> None:
    kind = KINDS[name]
    kind.parameters().validate()
    for setting, declared in kind.parameters.meanings().items():
        assert declared.help.endswith("."), setting
        assert declared.title.startswith(f"--kind={name}: "), setting
        assert isinstance(declared.default, tuple | float | str), setting
    assert all(kind.classes.values())


@every_kind
def test_settings_outside_their_limits_are_refused(name: str) -> None:
    for setting, declared in KINDS[name].parameters.meanings().items():
        wrong: list[object] = [float("nan"), float("inf")]
        if not declared.choices:
            wrong.append((declared.low or 0.0) - 1)
        if isinstance(declared.default, tuple):
            low, high = declared.default
            wrong = [(value, value) for value in wrong] + [(high + 1, low)]
        if declared.choices:
            wrong = ["abacus"]
        for value in wrong:
            with pytest.raises(UserError, match=f"^--{setting}="):
                KINDS[name].parameters(**{setting: value}).validate()  # type: ignore[arg-type]


def test_no_two_kinds_share_the_name_of_a_setting() -> None:
    names = [setting for kind in KINDS.values() for setting in kind.parameters.meanings()]
    assert len(names) == len(set(names))


@every_kind
def test_settings_change_the_images(name: str) -> None:
    kind = KINDS[name]
    height, width = SMALL.get(name, (24, 20))
    last = list(kind.classes)[-1]

    def image(parameters: Parameters) -> np.ndarray:
        files = kind.sample(last, 0, Request(0, height, width, parameters)).files
        return np.concatenate([pixels.ravel() for pixels in files.values()])

    usual, changed = image(kind.parameters()), 0
    defaults = {n: s.default for n, s in kind.parameters.meanings().items()}
    drawn = {n: d for n, d in defaults.items() if isinstance(d, tuple)}
    for setting, (low, high) in drawn.items():
        other = kind.parameters(**{setting: (high, high) if high else (low, low)})  # type: ignore[arg-type]
        changed += not np.array_equal(image(other), usual)
    assert changed >= len(drawn) // 2  # the others belong to other classes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": (16, 24)}, "lattice images are square"),
        ({"image_size": (8, 8)}, "image_size=8: must be 16"),
        ({"file_format": NPY}, "lattice can be written as png"),
        ({"classes": ["hexagone"]}, "no lattice class 'hexagone'"),
    ],
)
def test_what_a_kind_cannot_do_is_refused(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(tmp_path / "set", "lattice", 1, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_encoded_pixels_come_back(tmp_path: Path, dtype: type) -> None:
    values = np.random.default_rng(0).uniform(0, 250, (5, 7)).astype(dtype)
    file = tmp_path / "image"
    file.write_bytes(encode(values))
    back = np.load(file) if dtype is np.float32 else np.asarray(Image.open(file))
    np.testing.assert_array_equal(back, values)


def test_levels_are_rounded_and_clipped() -> None:
    image = np.array([[-1.0, 0.0, 0.5, 1.0, 2.0]])
    assert to_levels(image, "png").tolist() == [[0, 0, 128, 255, 255]]
    assert to_levels(image, "png16").tolist() == [[0, 0, 32768, 65535, 65535]]
