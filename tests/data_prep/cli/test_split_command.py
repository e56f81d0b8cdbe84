import csv
import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.cli import label_fraction, split
from data_prep.manifest.scan import scan_folder
from tests.data_prep.image_files import pixels, write

ROOT = Path(__file__).parents[3]
RATIOS = "--ratios=train:0.6,validation:0.3,test:0.1"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 images of class a and 20 of b; every field f00, f01, ... gave five of them."""
    root = tmp_path_factory.mktemp("set") / "images"
    rng = np.random.default_rng(0)
    for number in range(50):
        label = "a" if number < 30 else "b"
        noise = rng.integers(0, 256, (16, 16), dtype=np.uint8)
        write(root / label / f"f{number // 5:02d}_obj{number}.png", noise)
    return root


def texture(seed: int) -> np.ndarray:
    """Noise whose amplitude falls with its frequency, as in photographs, uint8 [64, 64]."""
    spectrum = np.fft.rfft2(np.random.default_rng(seed).normal(size=(64, 64)))
    radius = np.hypot(np.fft.fftfreq(64)[:, np.newaxis], np.fft.rfftfreq(64))
    image = np.fft.irfft2(spectrum / np.maximum(radius, 1 / 64))
    image = (image - image.min()) / (image.max() - image.min())
    return (image * 255).astype(np.uint8)


def run(*arguments: str) -> int:
    return split.main(arguments)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def counts(path: Path) -> dict[tuple[str, str], int]:
    return dict(Counter((row["label"], row["split"]) for row in rows(path)))


EXACT = {
    **{("a", "train"): 18, ("a", "validation"): 9, ("a", "test"): 3},
    **{("b", "train"): 12, ("b", "validation"): 6, ("b", "test"): 2},
}


def test_a_split_is_exact_complete_hashed_and_the_same_again(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        assert run(f"--image_dir={images}", RATIOS, f"--output={tmp_path / name}.csv") == 0
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert counts(tmp_path / "one.csv") == EXACT
    assert sorted(row["path"] for row in rows(tmp_path / "one.csv")) == sorted(
        path.relative_to(images).as_posix() for path in images.rglob("*.png")
    )
    for row in rows(tmp_path / "one.csv"):
        file = Path(row["root"]) / row["path"]
        assert file.samefile(tmp_path / row["relative_root"] / row["path"])
        assert row["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    out = capsys.readouterr().out
    assert "class  train  validation  test  total\na         18           9     3     30" in out
    assert "seed 0" in out
    assert run(f"--image_dir={images}", RATIOS, "--seed=1", f"--output={tmp_path}/other.csv") == 0
    assert (tmp_path / "other.csv").read_bytes() != (tmp_path / "one.csv").read_bytes()


def test_fields_of_view_are_never_torn(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.csv"
    assert run(f"--image_dir={images}", RATIOS, "--group_by=^.*/(.*)_obj", f"--output={out}") == 0
    homes = {(Path(row["path"]).name[:3], row["split"]) for row in rows(out)}
    assert len(homes) == 10
    assert {row["group"] for row in rows(out)} == {f"f{n:02d}" for n in range(10)}
    assert (
        "kept together: 10 groups; 50 files in 10 units, the largest of 5\n"
        in capsys.readouterr().out
    )


def test_folds_and_their_trees(images: Path, tmp_path: Path) -> None:
    flags = (f"--image_dir={images}", "--folds=4", "--sealed=test:0.2")
    assert run(*flags, f"--output={tmp_path}/folds", f"--tree={tmp_path}/trees") == 0
    assert sorted(os.listdir(tmp_path / "folds")) == [f"fold_{n}.csv" for n in range(1, 5)]
    held_out: Counter[str] = Counter()
    for number in range(1, 5):
        fold = tmp_path / "folds" / f"fold_{number}.csv"
        assert Counter(row["split"] for row in rows(fold)) == {
            "train": 30,
            "validation": 10,
            "test": 10,
        }
        held_out.update(row["path"] for row in rows(fold) if row["split"] != "train")
        scanned = scan_folder(tmp_path / "trees" / f"fold_{number}")
        assert Counter((r.label, r.split) for r in scanned.records) == counts(fold)
    assert sorted(held_out.values()) == [1] * 40 + [4] * 10


def test_copies_and_mirrored_copies_do_not_cross(images: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for number in range(12):
        image = texture(number)
        write(root / "k" / f"p{number:02d}.png", image)
        write(root / "k" / f"q{number:02d}_flipped.png", image[:, ::-1])
        write(root / "k" / f"r{number:02d}_brighter.png", (image * 0.9 + 20).astype(np.uint8))
    os.link(root / "k" / "p00.png", root / "k" / "s00.png")

    def homes(*flags: str) -> dict[str, str]:
        out = tmp_path / f"{len(os.listdir(tmp_path))}.csv"
        assert (
            run(f"--image_dir={root}", "--ratios=train:0.5,test:0.5", f"--output={out}", *flags)
            == 0
        )
        return {Path(row["path"]).name: row["split"] for row in rows(out)}

    def torn(found: dict[str, str], first: str, second: str) -> int:
        return sum(
            found[name] != found[other]
            for name in found
            for other in found
            if name[0] == first and other[0] == second and name[1:3] == other[1:3]
        )

    ignored = homes("--near_duplicates=ignore")
    assert torn(ignored, "p", "q") > 0
    assert torn(ignored, "p", "r") > 0
    assert ignored["p00.png"] == ignored["s00.png"]
    upright = homes("--near_duplicates=together")
    assert torn(upright, "p", "r") == 0
    assert torn(upright, "p", "q") > 0
    usual = homes()
    assert torn(usual, "p", "q") == torn(usual, "p", "r") == 0


def test_merging_subsets_and_keeping_the_splits_of_a_manifest(images: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    assert run(f"--image_dir={images}", RATIOS, f"--output={first}") == 0
    assert (
        run(f"--manifest={first}", "--subset=train:0.2", "--merge=c:a,b", f"--output={second}") == 0
    )
    assert counts(second) == {("c", "train"): 6, ("c", "validation"): 15, ("c", "test"): 5}
    before = {row["path"]: row["split"] for row in rows(first)}
    assert all(before[row["path"]] == row["split"] for row in rows(second))


def test_label_fractions_nest_and_leave_the_rest(images: Path, tmp_path: Path) -> None:
    first = tmp_path / "1.csv"
    assert run(f"--image_dir={images}", RATIOS, f"--output={first}") == 0
    kept = []
    for name, flag in (("a", "--fraction=0.1"), ("b", "--fraction=0.5"), ("c", "--fraction=0.1")):
        out = tmp_path / f"{name}.csv"
        arguments = (f"--manifest={first}", flag, "--seed=4", f"--output={out}")
        code = label_fraction.main(arguments)
        assert code == 0
        assert [row["split"] for row in rows(out)] == [row["split"] for row in rows(first)]
        kept.append({r["path"] for r in rows(out) if r["label"] and r["split"] == "train"})
    assert (len(kept[0]), len(kept[1])) == (3, 15)
    assert kept[0] == kept[2] < kept[1]
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()


def test_labels_of_whole_groups_leave_the_group_column_alone(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.csv"
    arguments = (
        f"--image_dir={images}",
        "--fraction=0.4",
        "--group_by=(f[0-9]*)_",
        f"--output={out}",
    )
    assert label_fraction.main(arguments) == 0
    labeled = Counter(Path(row["path"]).name[:3] for row in rows(out) if row["label"])
    assert list(labeled.values()) == [5] * 4
    assert {row["group"] for row in rows(out)} == {""}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "give --ratios, such as train:0.6,validation:0.3,test:0.1, or --folds"),
        (["--ratios=train:0.6,test:0.6"], "must add up to 1, not 1.2"),
        (["--ratios=train:0.99,test:0.01"], "50 images are too few for the split 'test'"),
        (["--folds=1"], "--folds=1: must be 2 or more"),
        ([RATIOS, "--sealed=test:0.1"], "need --folds"),
        ([RATIOS, "--group_by=core"], "no such column"),
        ([RATIOS, "--merge=c:a,x"], "no class 'x'"),
        ([RATIOS, "--subset=dev:0.5"], "no split 'dev'"),
        ([RATIOS, "--manifest=x.csv"], "manifest not found"),
    ],
)
def test_wrong_requests_say_one_line_and_write_nothing(
    images: Path, tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"--image_dir={images}", f"--output={tmp_path}/m.csv", *flags) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("simclr-split: error: ")
    assert said in last
    assert os.listdir(tmp_path) == []


def test_outputs_are_never_overwritten(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.csv").write_text("mine")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.png").write_text("mine")
    base = (f"--image_dir={images}", RATIOS)
    assert run(*base, f"--output={tmp_path}/m.csv") == 1
    assert run(*base, f"--output={tmp_path}/n.csv", f"--tree={tmp_path}/tree") == 1
    arguments = (f"--image_dir={images}", "--fraction=0.5", f"--output={tmp_path}/m.csv")
    assert label_fraction.main(arguments) == 1
    assert capsys.readouterr().err.count("is there already") == 3
    assert (tmp_path / "m.csv").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["m.csv", "tree"]


def test_a_file_that_changed_since_the_manifest_is_named(tmp_path: Path, capsys) -> None:
    root = tmp_path / "set"
    for number in range(10):
        write(root / "a" / f"{number}.png", pixels(number, channels=1))
    assert run(f"--image_dir={root}", "--ratios=x:0.5,y:0.5", f"--output={tmp_path}/1.csv") == 0
    Image.new("L", (9, 9)).save(root / "a" / "3.png")
    assert run(f"--manifest={tmp_path}/1.csv", f"--output={tmp_path}/2.csv") == 1
    assert "1 file is not what the manifest was made of, such as" in capsys.readouterr().err


def test_commands_start_and_split_without_tensorflow(images: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from data_prep.cli import split, label_fraction\n"
        f"sys.argv = ['x', '--image_dir={images}', '{RATIOS}', '--output={tmp_path}/m.csv']\n"
        "assert split.main() == 0\n"
        f"sys.argv = ['x', '--manifest={tmp_path}/m.csv', '--fraction=0.5',"
        f" '--output={tmp_path}/n.csv']\n"
        "assert label_fraction.main() == 0\n"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
