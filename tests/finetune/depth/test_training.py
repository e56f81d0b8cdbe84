"""Whole runs: what they leave, in which units they are judged, how they stop and go on."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from finetune.cli.depth_train import main
from finetune.depth import train
from finetune.depth.pairs import DepthSet
from finetune.depth.runs import depth_folds, train_all
from finetune.depth.trained import DepthModel, Translator, load_depth_models
from simclr_tf.training.callbacks import read_metrics
from tests.damaging import Damage, do_damage, flipped, half, removed
from tests.finetune.depth.sets import SIZE, config, make_real, make_set
from tests.killing import assert_same, left

pytestmark = pytest.mark.slow


CYCLE: dict[str, Any] = {
    "model": "cyclegan", "filters": "2,2", "residual_blocks": 0, "guided_weight": 1.0,
    "pool_size": 5, "learning_rate": 2e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    make_set(folder, 12, ("train", "train", "train", "train", "validation", "test"))
    return folder


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "run"
    values = {"train_epochs": 12, "learning_rate": 0.01, "sample_every": 5}
    assert train_all(config(images, output, **values)) == 0
    return output


def predicted(output: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """What the folder's network makes of a split, and the true depth."""
    part = DepthSet(Manifest.load(output / "manifest.csv").split(split))
    model = DepthModel.load(output)
    maps = model.predict(part.images(part.records), batch_size=3)
    return maps, part.targets(part.records)[..., 0]


def test_a_run_leaves_everything_that_it_promises(whole: Path) -> None:
    names = {p.name for p in whole.iterdir()}
    assert names >= {
        "config.json", "flags.txt", "environment.json", "manifest.csv", "metrics.csv",
        "validation.csv", "history.csv", "best", "generator.keras", "depth.json", "result.json",
        "samples",
    }  # fmt: skip
    assert any(name.startswith("events.out") for name in names)
    sheets = sorted(p.name for p in (whole / "samples").iterdir())
    assert sheets == ["epoch_0005.png", "epoch_0010.png", "epoch_0012.png"]
    with Image.open(whole / "samples" / sheets[0]) as sheet:
        assert len(np.unique(np.asarray(sheet))) > 50
    facts = json.loads((whole / "depth.json").read_text())
    assert (facts["kind"], facts["case"], facts["unit"]) == ("autoencoder", "", "nm")
    assert facts["image_size"] == list(SIZE)
    model = DepthModel.load(whole)
    assert model.image_size == SIZE
    assert model.depth_min == pytest.approx(116, abs=0.01)
    assert 140 < model.depth_max < 173
    assert list(load_depth_models(whole)) == [""]


def test_validation_is_in_units_of_the_network_that_is_handed_out(whole: Path) -> None:
    history = read_metrics(whole / "history.csv")
    assert list(history["epoch"]) == list(range(1, 13))
    assert history["train/total_loss"][-1] < history["train/total_loss"][0]
    best = int(np.argmin(history["validation/rmse"]))
    maps, true = predicted(whole, "validation")
    rmse = np.sqrt(np.square(maps.astype(np.float64) - true).mean())
    assert rmse == pytest.approx(history["validation/rmse"][best], rel=1e-4)
    facts = json.loads((whole / "depth.json").read_text())
    assert facts["epoch"] == best + 1
    results = json.loads((whole / "result.json").read_text())
    assert results["validation"]["all"]["rmse"] == pytest.approx(rmse, rel=1e-5)


def test_test_images_are_measured_beside_what_needs_no_network(images: Path, whole: Path) -> None:
    results = json.loads((whole / "result.json").read_text())["test"]
    maps, true = predicted(whole, "test")
    part = DepthSet(Manifest.load(images / "manifest.csv").split("train"))
    trained = part.targets(part.records)[..., 0]
    wanted = {"rmse": maps, "rmse_of_mean_depth": trained.mean(), "rmse_of_mean_map":
              trained.mean(0)}  # fmt: skip
    for name, guess in wanted.items():
        value = np.sqrt(np.square(guess - true.astype(np.float64)).mean())
        assert results["all"][name] == pytest.approx(value, rel=1e-4), name
    assert results["all"]["rmse"] < results["all"]["rmse_of_mean_depth"]
    assert set(results) == {"all", "c2"}, "the cases of test images"


def test_a_complete_run_is_kept_and_another_one_refused(images: Path, whole: Path) -> None:
    values = {"train_epochs": 12, "learning_rate": 0.01}
    before = (whole / "depth.json").stat().st_mtime_ns
    assert train_all(config(images, whole, **values)) == 0
    assert (whole / "depth.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"--output=.*--bottleneck was 8, is 9"):
        train_all(config(images, whole, **values, bottleneck=9))
    with pytest.raises(UserError, match="takes images of 12x8 pixels"):
        DepthModel.load(whole).predict(np.zeros((1, 8, 12, 1), np.float32))
    with pytest.raises(UserError, match="makes depth maps"):
        Translator.load(whole)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes the next runs fall over after a step, before anything of it is saved."""

    def at(step: int) -> None:
        class Falls(train.cb.Progress):  # type: ignore[name-defined]
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                if logs["step"] == step:
                    raise KeyboardInterrupt

        monkeypatch.setattr(train.cb, "Progress", Falls)

    progress = train.cb.Progress
    yield at
    monkeypatch.setattr(train.cb, "Progress", progress)


@pytest.mark.parametrize(
    "values",
    [
        {"model": "autoencoder", "horizontal_flip": True},
        pytest.param({**CYCLE, "critic_steps": 2}, marks=pytest.mark.thorough),
    ],
)
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    values: dict[str, Any], images: Path, tmp_path: Path, killed: Any
) -> None:
    straight, output = tmp_path / "straight", tmp_path / "killed"
    assert train_all(config(images, straight, **values)) == 0
    progress = train.cb.Progress
    killed(6)  # of 4 (2) steps an epoch: the rest of its epoch is lost
    with pytest.raises(KeyboardInterrupt):
        train_all(config(images, output, **values))
    assert list(output.glob("ckpt-*.index"))
    assert not (output / "depth.json").exists()
    train.cb.Progress = progress
    assert train_all(config(images, output, **values)) == 0
    one, two = (read_metrics(folder / "metrics.csv") for folder in (straight, output))
    for name in set(one) - {"seconds"}:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    for name in ("validation.csv", "result.json", "depth.json"):
        assert (straight / name).read_bytes() == (output / name).read_bytes(), name
    np.testing.assert_array_equal(predicted(straight, "test")[0], predicted(output, "test")[0])


@pytest.mark.parametrize(
    "damage", [flipped, *(pytest.param(d, marks=pytest.mark.thorough) for d in (half, removed))]
)
def test_damaged_files_of_a_finished_run_are_named_and_made_again(
    images: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Damage
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    every = json.loads((whole / "flags.json").read_text())["sample_every"]
    values = {"train_epochs": 12, "learning_rate": 0.01, "sample_every": every}
    names = ["generator.keras", "history.csv", "result.json", "depth.json"]
    for name in names:
        do_damage(folder / name, damage)
    with pytest.raises(UserError, match=r"depth\.json"):
        load_depth_models(folder)
    with caplog.at_level("INFO"):
        assert train_all(config(images, folder, **values)) == 0
    for name in names:
        assert f"{folder / name} " in caplog.text, name
    assert_same(
        {k: v for k, v in left(folder).items() if "warnings" not in k},
        {k: v for k, v in left(whole).items() if "warnings" not in k},
        "made again",
    )
    do_damage(folder / "metrics.csv", damage)
    (folder / "depth.json").unlink()
    caplog.clear()
    assert train_all(config(images, folder, **values)) == 0
    assert f"{folder / 'metrics.csv'} " in caplog.text
    assert (folder / "result.json").read_bytes() == (whole / "result.json").read_bytes()


def test_every_case_gets_a_network_of_its_own(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "cases"
    values = {"per_case": True, "train_epochs": 1}
    assert train_all(config(images, output, **values)) == 0
    assert {p.name for p in output.glob("[!.]*")} == {"case_c1", "case_c2"}
    models = load_depth_models(output)
    assert list(models) == ["c1", "c2"]
    for case, model in models.items():
        assert model.case == case
        trained = Manifest.load(output / f"case_{case}" / "manifest.csv")
        assert {record.case for record in trained.records} == {case}
    (output / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds something else \(notes.txt\)"):
        train_all(config(images, output, **values))
    with pytest.raises(UserError, match="no image has it; there are c1, c2"):
        train_all(config(images, tmp_path / "none", case="c3"))
    with pytest.raises(UserError, match=r"holds neither depth.json nor folders case_<case>"):
        load_depth_models(tmp_path)


def test_folds_validate_on_every_map_once_and_keep_test_apart(images: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(images / "manifest.csv")
    folds = depth_folds(manifest, 3, 0)
    test = {record.path for record in manifest.split("test").records}
    held: list[str] = []
    for fold in folds:
        assert {record.path for record in fold.split("test").records} == test
        parts = {name: {r.group for r in fold.split(name).records} for name in fold.splits}
        assert not parts["train"] & parts["validation"]
        held += sorted(parts["validation"])
    assert sorted(held) == sorted({r.group for r in manifest.records if r.split != "test"})
    output = tmp_path / "folds"
    assert train_all(config(images, output, folds=2, train_epochs=1)) == 0
    assert {p.name for p in output.glob("[!.]*")} == {"fold_1", "fold_2", "folds.csv"}
    with (output / "folds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["split"]) for row in rows] == [
        (f"fold_{n}", split) for n in (1, 2) for split in ("validation", "test")
    ]
    maps, true = predicted(output / "fold_2", "validation")
    rmse = np.sqrt(np.square(maps.astype(np.float64) - true).mean())
    assert float(rows[2]["rmse"]) == pytest.approx(rmse, rel=1e-5)


def test_a_translator_takes_real_images_to_simulated_ones(images: Path, tmp_path: Path) -> None:
    real = make_real(tmp_path, 8)
    output = tmp_path / "run"
    values = {**CYCLE, "guided_weight": 0.0, "direction": "real", "real_manifest": str(real)}
    assert train_all(config(images, output, **values, train_epochs=2)) == 0
    facts = json.loads((output / "depth.json").read_text())
    assert (facts["direction"], facts["epoch"]) == ("real", 2)
    assert (output / "samples" / "epoch_0002.png").exists()
    pixels = np.random.default_rng(0).random((5, *SIZE, 1), np.float32)
    translated = Translator.load(output).translate(pixels)
    assert translated.shape == pixels.shape
    assert ((translated > 0) & (translated < 1)).all()
    with pytest.raises(UserError, match="makes no depth maps"):
        DepthModel.load(output)


def command(*arguments: str) -> int:
    return main(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--output is missing"),
        (["--output=O"], "give --manifest=FILE, or --image_dir=FOLDER and --target_dir=FOLDER"),
        (["--output=O", "--manifest=M", "--case=c1", "--per_case"], "give one of them"),
        (["--output=O", "--manifest=M", "--folds=1"], "must be 2 or more"),
        (["--output=O", "--manifest=M", "--filters=4,x"], "give numbers such as 16,32,64"),
        (["--output=O", "--manifest=M", "--direction=real"], "is for --model=cyclegan"),
        (["--output=O", "--image_dir=I", "--target_dir=T"], "16 of 16 images have no target"),
        (["--output=O", "--manifest=M", "--encoder=x", "--model=autoencoder"], "for --model=unet"),
        (["--output=O", "--manifest=M", "--pair_by=_0"], "give --target_dir=FOLDER too"),
    ],
)
def test_wrong_input_ends_in_one_line_and_writes_nothing(
    arguments: list[str],
    message: str,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_set(tmp_path / "set", 8)
    names = {"O": tmp_path / "out", "M": images / "manifest.csv", "I": tmp_path / "set" / "sem",
             "T": tmp_path / "set" / "maps"}  # fmt: skip
    given = []
    for text in arguments:
        flag, equals, value = text.partition("=")
        given.append(f"{flag}{equals}{names.get(value, value)}")
    assert command(*given) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("simclr-depth-train: error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_pairs_by_name_train_without_a_manifest(tmp_path: Path) -> None:
    make_set(tmp_path / "set", 10, bits=8)
    arguments = [
        f"--image_dir={tmp_path / 'set' / 'sem'}", f"--target_dir={tmp_path / 'set' / 'maps'}",
        "--pair_by=_[01]$", f"--output={tmp_path / 'out'}", "--model=autoencoder", "--filters=2",
        "--bottleneck=2", "--train_epochs=1", "--train_batch_size=4", "--per_case",
    ]  # fmt: skip
    assert command(*arguments) == 0
    models = load_depth_models(tmp_path / "out")
    assert list(models) == ["c1", "c2"], "the class folders"
    assert models["c1"].depth_min == pytest.approx(116)
