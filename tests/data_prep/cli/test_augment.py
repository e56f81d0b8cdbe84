import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.augment.config import ViewConfig
from data_prep.augment.image_data_generator_config import SupervisedConfig
from data_prep.cli import augment
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import scan_folder
from data_prep.manifest.splits import stratified_split
from tests.data_prep.image_files import pixels, write

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 10 images a class, 6 of them for training."""
    root = tmp_path_factory.mktemp("set")
    for number in range(20):
        write(root / "images" / "ab"[number % 2] / f"{number}.png", pixels(number, 18, 24))
    ratios = {"train": 0.6, "validation": 0.2, "test": 0.2}
    manifest = stratified_split(scan_folder(root / "images"), ratios, 0)
    manifest.save(root / "split.csv")
    return root / "split.csv"


def run(*arguments: str) -> int:
    return augment.main(arguments)


def test_copies_and_the_tables_before_and_after(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"--manifest={listed}", f"--output={tmp_path}/out") == 0
    captured = capsys.readouterr()
    assert (
        captured.out.split()
        == (
            "before class train validation test total a 6 2 2 10 b 6 2 2 10 total 12 4 4 20"
            " after class train validation test total a 24 2 2 28 b 24 2 2 28 total 48 4 4 56"
        ).split()
    )
    assert f"wrote 36 copies to {tmp_path}/out" in captured.err
    result = Manifest.load(tmp_path / "out" / "manifest.csv")
    assert len(result) == 56
    with Image.open(tmp_path / "out" / result.records[20].path) as image:
        flipped = np.asarray(image)
    with Image.open(result.files()[0]) as image:
        np.testing.assert_array_equal(flipped[:, ::-1], np.asarray(image))


def test_random_copies_are_made_in_a_process_that_has_computed_before(
    listed: Path, tmp_path: Path
) -> None:
    import tensorflow as tf

    tf.zeros([1])
    arguments = ("--operations=rotate,stronger", "--copies=2", "--tree_mode=list")
    assert run(f"--manifest={listed}", f"--output={tmp_path}/out", *arguments) == 0
    result = Manifest.load(tmp_path / "out" / "manifest.csv")
    assert [os.path.basename(r.path).partition("_")[2] for r in result.records[20:24]] == [
        "aug00_rotate.png",
        "aug01_rotate.png",
        "aug02_stronger.png",
        "aug03_stronger.png",
    ]
    assert result.files()[0].startswith(str(listed.parent))


def test_the_same_command_twice_is_complete_and_another_refuses_to_overwrite(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (f"--manifest={listed}", f"--output={tmp_path}/out", "--operations=hflip")
    assert run(*arguments) == 0
    first = capsys.readouterr().out
    before = sorted(os.listdir(tmp_path / "out"))
    assert run(*arguments) == 0
    said = capsys.readouterr()
    assert "out is complete" in said.err
    assert said.out == first
    assert run(*arguments[:2], "--operations=vflip") == 1
    assert "out is not empty: give another --output" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path / "out")) == before
    (tmp_path / "out" / "manifest.csv").unlink()
    assert run(*arguments) == 1, "what is not whole is not complete"


SMALL = ("--preview_images=2", "--image_size=16")


RECIPES = next(s.choices for s in augment.AugmentConfig.settings() if s.name == "recipe")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_drawn(listed: Path, tmp_path: Path, recipe: str) -> None:
    number = "--small_crops=2" if recipe == "swav" else "--preview_views=2"
    arguments = (f"--manifest={listed}", f"--recipe={recipe}", number, *SMALL)
    for name in ("a.png", "b.png"):
        assert run(*arguments, f"--preview={tmp_path}/{name}") == 0
    assert sorted(file.name for file in tmp_path.glob("[!.]*")) == ["a.png", "b.png"]
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert min(image.size) > 200


def settings_of(*arguments: str) -> augment.AugmentConfig:
    return augment.COMMAND.parsed(["--preview=sheet.png", *arguments])[0]


def test_without_flags_the_recipes_are_their_defaults() -> None:
    values = settings_of()
    expected = ViewConfig(224, 3, num_views=6)
    assert augment.previewed_views(values, 3) == expected
    assert augment.generator_of(values) == SupervisedConfig()
    values = settings_of("--recipe=finetune")
    assert not augment.previewed_views(values, 3).jitter
    assert augment.previewed_views(values, 3).num_views == 6


def test_flags_reach_the_recipes() -> None:
    values = settings_of(
        "--image_size=32", "--preview_views=3", "--nohorizontal_flip", "--vertical_flip",
        "--color_jitter_strength=0.5", "--nouse_blur", "--norandom_crop", "--min_crop_area=0.3",
        "--min_crop_aspect=0.5", "--right_angle_rotation", "--rotation_degrees=15",
        "--central_crop=0.8", "--jitter_impl=simclrv1", "--gray_probability=0.1",
        "--saturation_share=0.7", "--blur_probability=0.3", "--solarize_probability=0.1,0.2",
    )  # fmt: skip
    assert augment.previewed_views(values, 1) == ViewConfig(
        image_size=32,
        channels=1,
        num_views=3,
        random_crop=False,
        crop_area=(0.3, 1.0),
        crop_aspect=(0.5, 2.0),
        horizontal_flip=False,
        vertical_flip=True,
        right_angle_rotation=True,
        rotation_degrees=15,
        central_crop=0.8,
        color_jitter_strength=0.5,
        jitter_impl="simclrv1",
        gray_probability=0.1,
        blur=False,
        saturation_share=0.7,
        blur_probability=0.3,
        solarize_probability=(0.1, 0.2),
    )
    values = settings_of(
        "--rotation_range=40", "--width_shift_range=0.2", "--height_shift_range=3",
        "--brightness_range=0.5,1.5", "--shear_range=10", "--zoom_range=0.8,1",
        "--channel_shift_range=9", "--fill_mode=wrap", "--cval=7", "--horizontal_flip",
    )  # fmt: skip
    config = augment.generator_of(values)
    assert config == SupervisedConfig(
        rotation_range=40,
        width_shift_range=0.2,
        height_shift_range=3,
        brightness_range=(0.5, 1.5),
        shear_range=10,
        zoom_range=(0.8, 1.0),
        channel_shift_range=9,
        fill_mode="wrap",
        cval=7,
        horizontal_flip=True,
    )
    assert isinstance(config.height_shift_range, int)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--workers=-1", "--workers=-1: must be at least 0"),
        ("--preview_views=0", "--preview_views=0: must be at least 1"),
        ("--min_crop_aspect=0", "must be at least 0.1"),
    ],
)
def test_values_outside_their_limits_are_wrong_usage(
    flag: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--preview=p.png", flag) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either --output=FOLDER for copies, or --preview=FILE.png"),
        (("--output={0}/o", "--preview={0}/p.png"), "give either --output=FOLDER"),
        (("--output={0}/o", "--operations=hflop"), "no operation 'hflop'; there are hflip"),
        (("--output={0}/o", "--operations="), "no operation given"),
        (("--output={0}/o", "--copies=0"), "copies=0: must be 1 or more"),
        (("--preview={0}/p.jpg",), "must end in .png"),
        (
            ("--preview={0}/p.png", "--recipe=turn", "--rotation_range=9"),
            "--rotation_range does not belong to --recipe=turn, but to supervised",
        ),
        (
            ("--preview={0}/p.png", "--min_crop_area=0.5"),
            "--min_crop_area does not belong to --recipe=copies, but to simclr, finetune, moco",
        ),
        (
            ("--preview={0}/p.png", "--recipe=byol", "--blur_probability=1,2"),
            "--blur_probability=1,2: give a share from 0 to 1, or two, of either view: A,B",
        ),
        (
            ("--preview={0}/p.png", "--recipe=swav", "--preview_views=3"),
            "--preview_views: swav has two views",
        ),
        (
            ("--preview={0}/p.png", "--recipe=moco", "--small_crops=3"),
            "--small_crops does not belong to --recipe=moco, but to swav",
        ),
        (
            ("--preview={0}/p.png", "--recipe=supervised", "--zoom_range=a,b"),
            "--zoom_range=a,b: must be numbers",
        ),
        (
            ("--preview={0}/p.png", "--recipe=supervised", "--rotation_range=200"),
            "rotation_range must lie in 0 to 180",
        ),
    ],
)
def test_wrong_flags_end_in_one_line(
    listed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    given = [argument.format(tmp_path) for argument in arguments]
    assert run(f"--manifest={listed}", *given) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("simclr-augment: error: ")
    assert said in last
    assert os.listdir(tmp_path) == []


def test_images_without_splits_are_refused(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = listed.parent / "images"
    assert run(f"--image_dir={folder}", f"--output={tmp_path}/o") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "the images have no splits" in last
    assert last.endswith("make one first with simclr-split")
    assert os.listdir(tmp_path) == []
    assert run(f"--image_dir={folder}", f"--preview={tmp_path}/p.png", *SMALL) == 0


def test_help_and_exact_copies_need_no_tensorflow(listed: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from data_prep.cli import augment\n"
        f"sys.argv = ['x', '--manifest={listed}', '--output={tmp_path}/out']\n"
        "assert augment.main() == 0\n"
        "sys.argv = ['x', '--help']\n"
        "assert augment.main() == 0\n"
        "print(sorted({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_number_of_threads(listed: Path, tmp_path: Path) -> None:
    found = []
    for workers, threads in ((1, "1"), (4, "5")):
        output = tmp_path / str(workers)
        subprocess.run(
            [sys.executable, "-m", "data_prep.cli.augment", f"--manifest={listed}",
             f"--output={output}", "--operations=rotate,elastic,contrast,noise,stronger",
             f"--workers={workers}"],
            env=os.environ | {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads},
            cwd=ROOT, check=True, capture_output=True,
        )  # fmt: skip
        files = sorted(p for p in output.rglob("*") if p.is_file())
        found.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
    assert found[0] == found[1]
    assert len(found[0]) == 20 + 12 * 5 + 2  # the manifest, and the note that all is there


def test_help_answers_at_once() -> None:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.cli.augment", "--help"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert time.perf_counter() - started < 5  # 0.6 s on an idle machine
    for name in RECIPES:
        assert name in done.stdout
