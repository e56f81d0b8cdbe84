import csv
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.synthetic import write
from data_prep.synthetic.lattice import LatticeParameters, lattice_image
from data_prep.synthetic.lattice_classes import LATTICE_CLASSES
from data_prep.synthetic.write import write_lattice_set

ROOT = Path(__file__).parents[3]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_folders_counts_and_manifest(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "set"
    made = write_lattice_set(out, images_per_class=3, image_size=24, seed=1)
    folders = {path.name: path for path in out.iterdir() if path.is_dir()}
    assert set(folders) == set(LATTICE_CLASSES)
    assert all(len(list(path.glob("*.png"))) == 3 for path in folders.values())
    loaded = Manifest.load(out / "manifest.csv")
    assert len(loaded) == len(made) == 39
    assert loaded.class_names == tuple(sorted(LATTICE_CLASSES))
    for record, file in zip(loaded.records, loaded.files(), strict=True):
        assert Path(record.path).parts[0] == record.label
        with Image.open(file) as image:
            assert (image.mode, image.size) == ("L", (24, 24))
    assert (out.stat().st_mode & 0o777) == 0o755
    assert [path.name for path in out.parent.iterdir()] == ["set"]  # nothing half-made left


def test_parameters_reproduce_the_image(tmp_path: Path) -> None:
    write_lattice_set(tmp_path / "set", images_per_class=2, image_size=24, seed=4)
    with (tmp_path / "set" / "parameters.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 26
    row = rows[15]
    pixels, crystal = lattice_image(row["class_name"], 1, seed=4, image_size=24)
    assert float(row["ratio"]) == crystal.ratio
    assert float(row["noise"]) == crystal.noise
    with Image.open(tmp_path / "set" / row["path"]) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_the_same_seed_gives_the_same_bytes_and_more_images_begin_alike(tmp_path: Path) -> None:
    for name, count, seed in (("a", 2, 7), ("b", 2, 7), ("more", 4, 7), ("other", 2, 8)):
        write_lattice_set(tmp_path / name, images_per_class=count, image_size=16, seed=seed)
    a, more, other = (hashes(tmp_path / name) for name in ("a", "more", "other"))
    assert a == hashes(tmp_path / "b")
    pictures = [name for name in a if name.endswith(".png")]
    assert len(pictures) == 26
    assert all(more[name] == a[name] for name in pictures)
    assert all(other[name] != a[name] for name in pictures)


def test_what_is_there_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        write_lattice_set(tmp_path, images_per_class=1, image_size=16, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    write_lattice_set(empty, images_per_class=1, image_size=16, seed=0, classes=["hexagon"])
    assert len(list(empty.rglob("*.png"))) == 1


def test_nothing_is_left_of_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "_write_table", fail)
    with pytest.raises(KeyboardInterrupt):
        write_lattice_set(tmp_path / "set", images_per_class=1, image_size=16, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_chosen_classes_and_parameters(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_lattice_set(
        tmp_path / "set",
        images_per_class=2,
        image_size=32,
        seed=0,
        classes=["hexagon", "cubic_bcc"],
        parameters=LatticeParameters(noise=(0.0, 0.0), rotation=0.0),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with (tmp_path / "set" / "parameters.csv").open() as file:
        assert {(row["noise"], row["orientation"]) for row in csv.DictReader(file)} == {
            ("0.0", "0.0")
        }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images_per_class": 0}, "images_per_class=0"),
        ({"image_size": 8}, "image_size=8"),
        ({"seed": -1}, "seed=-1"),
        ({"classes": ["hexagone"]}, "no lattice class 'hexagone'"),
        ({"classes": []}, "no class given"),
        ({"classes": ["hexagon", "hexagon"]}, "twice"),
        ({"parameters": LatticeParameters(noise=(0.5, 0.1))}, "noise=0.5,0.1"),
    ],
)
def test_bad_requests_write_nothing(tmp_path: Path, changes: dict, said: str) -> None:
    request = {"images_per_class": 1, "image_size": 16, "seed": 0, **changes}
    with pytest.raises(UserError, match=said):
        write_lattice_set(tmp_path / "set", **request)
    assert list(tmp_path.iterdir()) == []


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "data_prep.cli.synthesize", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


def test_the_command_writes_the_set_and_refuses_to_overwrite(tmp_path: Path) -> None:
    flags = [
        "--kind=lattice",
        f"--output={tmp_path / 'set'}",
        "--images_per_class=2",
        "--image_size=16",
        "--seed=3",
        "--noise=0.2",
    ]
    done = run_command(*flags)
    assert done.returncode == 0, done.stderr
    assert "wrote 26 images of 13 classes" in done.stderr
    write_lattice_set(
        tmp_path / "same",
        images_per_class=2,
        image_size=16,
        seed=3,
        parameters=LatticeParameters(noise=(0.2, 0.2)),
    )
    assert hashes(tmp_path / "set") == hashes(tmp_path / "same")
    other = run_command(*flags[:-1], "--noise=0.3")
    assert other.returncode == 1
    assert other.stderr.count("\n") == 1
    assert "set is there already, written by another command" in other.stderr


@pytest.mark.parametrize(
    ("flag", "code", "said"),
    [
        ("--noise=a,b", 2, "--noise=a,b: give numbers"),
        ("--noise=1,2,3", 1, "--noise=1,2,3: must be two numbers, the smaller first"),
        ("--images_per_class=many", 2, "must be an integer"),
        ("--kind=latice", 2, "did you mean lattice?"),
    ],
)
def test_the_command_explains_wrong_values(tmp_path: Path, flag: str, code: int, said: str) -> None:
    done = run_command(f"--output={tmp_path / 'x'}", flag)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
