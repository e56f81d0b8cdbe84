"""Distillation runs: from a teacher, on images with and without labels."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.errors import UserError
from simclr_tf.checkpoints.load import load_model
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.from_checkpoint import adopt_checkpoint
from simclr_tf.training.run import execute
from tests.images import make_folder, make_split_folder
from tests.simclr_tf.checkpoints.common import path_of

pytestmark = pytest.mark.slow

COMMON: dict[str, Any] = {
    "mode": "train_then_eval",
    "floors": False,
    "train_batch_size": 8,
    "eval_batch_size": 8,
    "checkpoint_steps": 100,
    "warmup_epochs": 0.0,
    "precision": "float32",
    "health_watch": False,
    "optimizer": "adam",
}


def run(model_dir: Path, **values: Any) -> dict[str, Any]:
    given = {**COMMON, "model_dir": str(model_dir), **values}
    assert execute(adopt_checkpoint(RunConfig.from_values(given), given)) == 0
    return json.loads((model_dir / "result.json").read_text())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"), train=24, held_out=8)


@pytest.fixture(scope="module")
def teacher(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model_dir = tmp_path_factory.mktemp("runs") / "teacher"
    tf1 = str(path_of("tf1_tiny_r18_w8_cifar_pretrain"))
    result = run(model_dir, train_mode="finetune", image_dir=str(images), checkpoint=tf1,
                 train_steps=150, learning_rate=0.1)  # fmt: skip
    assert result["validation/label_top_1_accuracy"] > 0.9
    return model_dir


def test_a_smaller_student_learns_its_teachers_classes_from_images_without_labels(
    images: Path, teacher: Path, tmp_path: Path
) -> None:
    """A flat folder of the training images; their labels are nowhere to be seen."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, file in enumerate(sorted((images / "train").rglob("*.png"))):
        (flat / f"{i:03d}.png").write_bytes(file.read_bytes())
    run(tmp_path / "student", train_mode="distill", teacher=str(teacher), image_dir=str(flat),
        split_ratios="train:1", eval_split="train", width_multiplier=0.0625, train_steps=120,
        learning_rate=0.3)  # fmt: skip
    metrics = read_metrics(tmp_path / "student" / "metrics.csv")
    assert metrics["teacher_agreement"][-10:].mean() > metrics["teacher_agreement"][:5].mean() + 0.2
    assert metrics["distillation_loss"][-10:].mean() < 0.7 * metrics["distillation_loss"][:5].mean()
    student = load_model(tmp_path / "student")
    assert student.encoder.feature_dim == 32  # half the teacher's
    assert student.encoder.preprocessing["class_names"] == ["checks", "dots", "stripes"]


def test_without_flags_the_student_is_as_large_and_labels_may_help(
    images: Path, teacher: Path, tmp_path: Path
) -> None:
    result = run(tmp_path / "self", train_mode="distill", teacher=str(teacher),
                 image_dir=str(images), labels_per_class=2, labelled_weight=0.5, train_steps=3,
                 learning_rate=0.1)  # fmt: skip
    assert result["num_train_examples"] == 72  # all images, though only six keep their labels
    metrics = read_metrics(tmp_path / "self" / "metrics.csv")
    expected = 0.5 * (metrics["distillation_loss"] + metrics["supervised_loss"])
    np.testing.assert_allclose(metrics["total_loss"] - metrics["weight_decay"], expected, rtol=1e-5)
    config = RunConfig.load(tmp_path / "self" / "config.json")
    assert (config.model.width_multiplier, config.views.image_size) == (0.125, 32)


@pytest.mark.thorough
def test_two_replicas_learn_what_one_learns(images: Path, teacher: Path, tmp_path: Path) -> None:
    losses = []
    for number in (0, 2):
        folder = tmp_path / f"on{number}"
        run(folder, train_mode="distill", teacher=str(teacher), image_dir=str(images),
            train_steps=3, learning_rate=0.1, optimizer="momentum",
            num_cpu_devices=number)  # fmt: skip
        losses.append(read_metrics(folder / "metrics.csv")["distillation_loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-5)


def test_a_teacher_that_cannot_teach_is_refused(
    images: Path, teacher: Path, tmp_path: Path
) -> None:
    tf1 = str(path_of("tf1_tiny_r18_w8_cifar_pretrain"))
    common = {"train_mode": "distill", "train_steps": 2, "learning_rate": 0.1}
    with pytest.raises(UserError, match="has no supervised head to learn from"):
        run(tmp_path / "a", **common, teacher=tf1, image_dir=str(images))
    other = make_folder(tmp_path / "other", classes=("checks", "spots"))
    (tmp_path / "other" / "spots").mkdir(exist_ok=True)
    for file in (tmp_path / "other" / "checks").iterdir():
        (tmp_path / "other" / "spots" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="does not know the class 'spots'"):
        run(tmp_path / "b", **common, teacher=str(teacher), image_dir=str(other))
    for old, new in (("checks", "bars"), ("spots", "rings")):
        (tmp_path / "other" / old).rename(tmp_path / "other" / new)
    shutil.copytree(tmp_path / "other" / "bars", tmp_path / "other" / "waves")
    # As many classes as the teacher has, and none of them.
    with pytest.raises(UserError, match="does not know the class 'bars'"):
        run(tmp_path / "c", **common, teacher=str(teacher), image_dir=str(other))
