"""Facts that a command reads once, however many of its parts need them: checkpoints and headers."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from data_prep.reading import headers, training_files
from finetune.cli import finetune as finetune_command
from finetune.compare.recipes import missing_weights
from finetune.compare.strategies import CompareSettings
from simclr_tf.checkpoints.load import Checkpoints, load_model
from simclr_tf.checkpoints.write import write_model
from simclr_tf.cli import embed as embed_command
from simclr_tf.cli import run as run_command
from simclr_tf.models.simclr import SimCLRModel
from tests.finetune.runs import write_encoder
from tests.images import CLASSES, make_split_folder

Openings = Counter[str]
Reads = list[str]


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> Openings:
    """How often each checkpoint and `.keras` file is opened, by its path without links."""
    counted: Openings = Counter()

    def count(module: Any, reader: str) -> None:
        read = getattr(module, reader)

        def counting(path: str, *args: Any, **kwargs: Any) -> Any:
            counted[os.path.realpath(path)] += 1
            return read(path, *args, **kwargs)

        monkeypatch.setattr(module, reader, counting)

    count(tf.train, "load_checkpoint")
    count(keras.models, "load_model")
    return counted


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """The image files whose header is read, one after the other."""
    noted: Reads = []
    read = headers.read_header

    def noting(path: str, *args: Any, **kwargs: Any) -> headers.Header:
        noted.append(path)
        return read(path, *args, **kwargs)

    for module in (headers, training_files):
        monkeypatch.setattr(module, "read_header", noting)
    return noted


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"), train=3, held_out=2)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder.keras")


@pytest.fixture(scope="module")
def teacher(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with a supervised head, as tensors: the prefix."""
    model = SimCLRModel(load_model(encoder).encoder, len(CLASSES))
    model.build()
    folder = tmp_path_factory.mktemp("teacher")
    write_model(model, folder, "tf2")
    return folder / tf.train.latest_checkpoint(str(folder)).rpartition("/")[2]


def run(images: Path, model_dir: Path, *flags: str) -> None:
    common = ["--mode=train", "--train_batch_size=4", "--train_steps=1", "--checkpoint_steps=1"]
    common += ["--warmup_epochs=0", "--precision=float32", "--optimizer=adam", "--nohealth_watch"]
    given = [f"--image_dir={images}", f"--model_dir={model_dir}", *common, *flags]
    assert run_command.main(given) == 0


def test_a_run_opens_its_checkpoint_and_the_header_of_every_image_once(
    images: Path, encoder: Path, tmp_path: Path, openings: Openings, reads: Reads
) -> None:
    run(images, tmp_path / "run", "--train_mode=finetune", f"--checkpoint={encoder}")
    assert openings[str(encoder.resolve())] == 1
    assert sorted(reads) == sorted(map(str, images.rglob("*.png")))


def test_a_student_opens_its_teacher_and_its_start_once_each(
    images: Path, encoder: Path, teacher: Path, tmp_path: Path, openings: Openings
) -> None:
    start = [f"--teacher={teacher}", f"--checkpoint={encoder}", "--train_mode=distill"]
    run(images, tmp_path / "student", *start)
    assert openings[str(encoder.resolve())] == 1
    assert openings[str(teacher.resolve())] == 1


def test_fine_tuning_and_embedding_open_their_encoder_once(
    images: Path, encoder: Path, tmp_path: Path, openings: Openings, reads: Reads
) -> None:
    common = [f"--image_dir={images}", f"--encoder={encoder}", "--eval_batch_size=8"]
    common += ["--bootstrap=100", "--precision=float32", "--nofloors"]
    own = ["--train_steps=1", "--train_batch_size=4", f"--output={tmp_path / 'classifier'}"]
    assert finetune_command.main([*common, *own]) == 0
    assert openings[str(encoder.resolve())] == 1
    files = sorted(map(str, images.rglob("*.png")))
    assert sorted(reads) == files
    reads.clear()
    own = ["--noexplore", f"--output={tmp_path / 'embedding'}"]
    assert embed_command.main([*common, *own]) == 0
    assert openings[str(encoder.resolve())] == 2
    assert sorted(reads) == files


def test_the_strategies_of_a_comparison_share_one_opening(
    encoder: Path, openings: Openings
) -> None:
    both = ("imagenet_simclr", "imagenet_simclr+simclr")
    settings = CompareSettings.from_values(
        {"imagenet_checkpoint": str(encoder), "strategies": both, "image_dir": "images"}
    )
    checkpoints = Checkpoints()
    encoders = {row.encoder for row in settings.rows() if row.encoder.network == "imagenet_simclr"}
    assert len(encoders) > 1
    assert [missing_weights(settings, one, checkpoints) for one in encoders] == [""] * len(encoders)
    assert openings[str(encoder.resolve())] == 1
