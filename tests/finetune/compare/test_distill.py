"""Students of fine-tuned networks: what their teachers say, and what they are shown."""

import csv
from pathlib import Path

import keras
import numpy as np
import pytest

from data_prep.manifest.manifest import Manifest
from finetune.classifier import Classifier, SimCLRBackbone
from finetune.cli.compare import main
from finetune.compare.chain import FACTOR, as_simclr
from finetune.compare.images import load_division
from simclr_tf.checkpoints.load import load_encoder
from simclr_tf.models.simclr import SimCLREncoder
from tests.finetune.runs import RESNET, write_encoder
from tests.images import make_folder


def classifier(encoder: SimCLREncoder, hidden: tuple[int, ...] = ()) -> Classifier:
    keras.utils.set_random_seed(1)
    model = Classifier(SimCLRBackbone(encoder), 3, (32, 32, 1), hidden)
    model.build()
    return model


@pytest.mark.slow
def test_a_teacher_says_what_the_classifier_said(tmp_path: Path) -> None:
    encoder = load_encoder(write_encoder(tmp_path / "encoder.keras", channels=1, **RESNET))
    model = classifier(encoder)
    images = np.random.default_rng(0).random((5, 32, 32, 1), dtype=np.float32)
    said = as_simclr(model)(images, training=False)["logits_sup"]
    np.testing.assert_allclose(said, model.logits(images), rtol=1e-5, atol=1e-6)
    assert np.ptp(said, axis=0).min() > 0
    with pytest.raises(ValueError, match="only a linear head"):
        as_simclr(classifier(encoder, (8,)))


@pytest.mark.slow
def test_a_student_sees_all_training_images_and_the_drawn_labels_alone(tmp_path: Path) -> None:
    images = make_folder(tmp_path / "images", per_class=12, channels=1)
    encoder = write_encoder(tmp_path / "public.keras", channels=1, **RESNET)
    out = tmp_path / "out"
    flags = [
        f"--image_dir={images}", f"--output={out}", f"--imagenet_checkpoint={encoder}",
        "--strategies=imagenet_simclr+distill", "--label_fractions=0.4", "--folds=1",
        "--image_size=32", "--finetune_steps=3", "--minutes=0",
    ]  # fmt: skip
    assert main(flags) == 0
    with open(out / "results.csv") as stream:
        (row,) = (row for row in csv.DictReader(stream) if "distilled" in row["strategy"])
    division = load_division(out)
    (drawn,) = division.label_sets
    assert row["strategy"] == "imagenet_simclr (distilled)"
    assert int(row["labels"]) == len(drawn.rows)
    (folder,) = out.glob(f"encoders/*/{drawn.name}")
    with open(folder / "student" / "metrics.csv") as stream:
        trained = len(list(csv.DictReader(stream)))
    assert int(row["steps"]) == trained + trained // FACTOR
    shown = Manifest.load(folder / "student" / "manifest.csv").records
    records = division.images.records
    files = {Path(r.path).name: r for r in shown}
    assert set(files) == {Path(r.path).name for r in records if r.split == "train"}
    labeled = {Path(records[i].path).name: records[i].label for i in drawn.rows.tolist()}
    assert 0 < len(labeled) < len(files)
    assert {name: r.label for name, r in files.items() if r.label} == labeled
