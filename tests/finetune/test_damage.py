"""Finished runs whose files are damaged: what is named, what is made again, what is refused."""

import logging
import shutil
from pathlib import Path

import pytest

from data_prep.errors import UserError
from data_prep.storage import FILE as CHECKSUMS
from finetune.folds import read_folds
from finetune.report.files import read_results
from finetune.session import ClassifierDir
from finetune.trained import open_trained
from tests.damaging import Damage, do_damage, flipped, half, removed, zeroed
from tests.finetune.runs import run, write_encoder
from tests.images import make_split_folder
from tests.killing import assert_same, left

pytestmark = pytest.mark.slow

VALUES = {"image_size": 16, "train_epochs": 2, "train_batch_size": 8, "floors": True}
HANDED_OUT = ("model.keras", "report.json", "predictions.csv", "history.csv", "roc.csv",
              "calibration.csv", "precision_recall.csv", "floors.json", "views.png", "report.html",
              "saved_model/saved_model.pb", "saved_model/variables/variables.index")  # fmt: skip
STATE = ("config.json", "environment.json", "validation.csv", "blocks.json", "metrics.csv")
READ = ("report.json", "predictions.csv", "history.csv", "config.json")


DAMAGE = [flipped, *(pytest.param(d, marks=pytest.mark.thorough) for d in (half, zeroed, removed))]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"), train=4, held_out=3, size=16)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder.keras")


@pytest.fixture(scope="module")
def whole(encoder: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert run(encoder, images, folder, **VALUES) == 0
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_a_run_has_handed_out_is_named_and_made_again(
    encoder: Path, images: Path, copy: Path, whole: Path,
    caplog: pytest.LogCaptureFixture, damage: Damage,
) -> None:  # fmt: skip
    for name in HANDED_OUT:
        do_damage(copy / name, damage)
    with caplog.at_level(logging.INFO):
        assert run(encoder, images, copy, **VALUES) == 0
    for name in HANDED_OUT:
        assert f"{copy / name} " in caplog.text, name
    found, wanted = left(copy), left(whole)
    for kept in (found, wanted):
        del kept["warnings.csv"]  # which tells of the damage
    assert_same(found, wanted, "made again")
    assert ClassifierDir(copy).is_complete()


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_state_of_a_run_is_named_and_mended(
    encoder: Path, images: Path, copy: Path, whole: Path,
    caplog: pytest.LogCaptureFixture, damage: Damage,
) -> None:  # fmt: skip
    for name in STATE:
        do_damage(copy / name, damage)
    with caplog.at_level(logging.INFO):
        assert run(encoder, images, copy, **VALUES) == 0
    for name in STATE:
        assert f"{copy / name} " in caplog.text, name
    assert "the run is complete" in caplog.text
    for name in ("validation.csv", "blocks.json"):
        assert (copy / name).read_bytes() == (whole / name).read_bytes(), name
    caplog.clear()
    assert run(encoder, images, copy, **VALUES) == 0
    assert not [r for r in caplog.records if "damaged" in r.getMessage()], "all is said once"


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", READ)
def test_other_commands_refuse_damaged_files_by_name(copy: Path, name: str, damage: Damage) -> None:
    do_damage(copy / name, damage)
    readers = [read_results, read_folds] if name in READ[:3] else [open_trained]
    for read in readers:
        with pytest.raises(UserError, match=name) as said:
            read(str(copy))
        assert len(str(said.value).splitlines()) == 1
        assert "again" in str(said.value) or damage is removed


def test_a_run_of_before_has_no_checksums_and_is_read(
    encoder: Path, images: Path, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (copy / CHECKSUMS).unlink()
    assert read_results(copy).results.splits
    assert open_trained(str(copy)).class_names
    page = (copy / "report.html").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        assert run(encoder, images, copy, **VALUES) == 0
    assert "the run is complete" in caplog.text
    assert (copy / "report.html").stat().st_mtime_ns == page
