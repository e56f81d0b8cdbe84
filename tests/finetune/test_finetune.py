"""What fine-tuning brings to the engine: any encoder, its parts, what is taken from its record."""

import csv
import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_prep.augment.views import evaluation_crops
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.reading.images import read_image
from data_prep.reading.training_files import TrainingReading
from finetune.classifier import Classifier
from finetune.config import FinetuneConfig
from finetune.finetune import _adopt, recipe
from finetune.session import rate_factors
from finetune.trained import BatchScorer, open_trained
from simclr_tf.checkpoints.load import build_encoder, load_encoder, open_checkpoint
from simclr_tf.checkpoints.preprocessing import Preprocessing
from simclr_tf.checkpoints.write import write_model
from simclr_tf.evaluation.metrics import softmax
from simclr_tf.models.simclr import SimCLRModel
from tests.finetune.runs import run, write_encoder
from tests.images import make_split_folder
from tests.simclr_tf.checkpoints.common import LAYOUTS, path_of

TF1 = str(path_of("tf1_tiny_r18_w8_cifar_pretrain"))


def built(path: str, channels: int = 3, classes: int = 3, **values: Any) -> tuple[Classifier, Any]:
    config = FinetuneConfig.from_values({"encoder": path, "image_size": 32, **values})
    brought = recipe(config, open_checkpoint(path))
    keras.utils.set_random_seed(0)
    model = brought.build(channels, classes)
    brought.start(model)
    return model, brought


@pytest.mark.parametrize("layout", [n for n in LAYOUTS if "r50" not in n])
def test_every_layout_of_checkpoint_becomes_a_backbone(layout: str) -> None:
    path = str(path_of(layout))
    model, _ = built(path, image_size=64)
    x = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    np.testing.assert_allclose(model.features(x), load_encoder(path)(x), atol=1e-5)


def test_fresh_weights_keep_the_architecture_alone() -> None:
    theirs, _ = built(TF1)
    fresh, _ = built(TF1, fresh_weights=True)
    assert [v.shape for v in fresh.variables] == [v.shape for v in theirs.variables]
    x = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    assert not np.allclose(fresh.features(x), theirs.features(x), atol=1e-3)
    again, _ = built(TF1, fresh_weights=True)
    np.testing.assert_array_equal(again(x), fresh(x))


def test_an_encoder_of_color_takes_gray_images() -> None:
    color, _ = built(TF1)
    gray, _ = built(TF1, channels=1, stem_adapt="sum")
    x = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    np.testing.assert_allclose(
        gray.features(x), color.features(np.repeat(x, 3, axis=-1)), atol=1e-4
    )


@pytest.mark.parametrize(
    ("values", "trained"),
    [
        ({}, {"stem", *(f"block group {i}" for i in range(1, 5))}),
        ({"ft_proj_selector": 1}, {"stem", "projection head",
                                   *(f"block group {i}" for i in range(1, 5))}),
        ({"train_blocks": "4"}, {"block group 4"}),
        ({"train_blocks": "stem,2"}, {"stem", "block group 2"}),
        ({"head_only": True}, set()),
    ],
)  # fmt: skip
def test_the_parts_that_were_asked_for_train(values: dict[str, Any], trained: set[str]) -> None:
    model, brought = built(TF1, **values)
    found = {
        name
        for name, layers in brought.parts(model).items()
        if any(layer.trainable_variables for layer in layers)
    }
    assert found == trained
    assert model.head.trainable_variables


def test_layer_decay_gives_every_block_group_its_share_of_the_rate() -> None:
    model, brought = built(TF1, ft_proj_selector=1)
    factors = rate_factors(brought, model, 0.5)
    assert set(factors) == {id(v) for v in model.trainable_variables}
    own: Any = model.backbone
    stages = own.encoder.resnet.stages
    expected = {0: 0.5**6, 1: 0.5**5, 2: 0.5**4, 3: 0.5**3, 4: 0.5**2}
    for number, stage in stages.items():
        assert {factors[id(v)] for v in stage.trainable_variables} == {expected[number]}
    head = own.encoder.projection_head.projection_layers[0]
    assert {factors[id(v)] for v in head.trainable_variables} == {0.5}
    assert {factors[id(v)] for v in model.head.trainable_variables} == {1}


def test_size_crop_and_reading_come_from_the_encoders_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = open_checkpoint(TF1)
    encoder = build_encoder(checkpoint, 3)
    encoder.build()
    encoder.preprocessing = Preprocessing(
        48,
        3,
        central_crop=0.5,
        reading=TrainingReading({"intensity": "minmax", "nan": "zero", "tile": 64}),
    ).record()
    write_model(SimCLRModel(encoder), tmp_path / "e.keras", "keras")
    record = open_checkpoint(str(tmp_path / "e.keras"))
    with caplog.at_level(logging.INFO):
        config = _adopt(FinetuneConfig.from_values({}), record, ())
    assert (config.augment.image_size, config.augment.central_crop) == (48, 0.5)
    assert (config.reading.intensity, config.reading.nan) == ("minmax", "zero")
    assert config.reading.tile == 0, "how images were cut is another thing"
    assert "--image_size=48" in caplog.text
    mine = FinetuneConfig.from_values({"image_size": 64, "intensity": "sqrt"})
    kept = _adopt(mine, record, {"image_size", "intensity"})
    assert (kept.augment.image_size, kept.reading.intensity) == (64, "sqrt")


def test_a_layer_that_the_projection_head_has_not_is_refused() -> None:
    from finetune.finetune import finetune

    config = FinetuneConfig.from_values({"encoder": TF1, "ft_proj_selector": 4})
    with pytest.raises(UserError, match=r"--ft_proj_selector=4.*projection head"):
        finetune(config)


@pytest.mark.slow
def test_the_scores_of_several_crops_are_the_mean_over_all_of_the_image(tmp_path: Path) -> None:
    """In training's last word and in later predictions; the images here are not square."""
    images = make_split_folder(tmp_path / "images", train=4, held_out=2)
    for path in images.rglob("*.png"):
        wide = Image.open(path).resize((60, 32))
        wide.save(path)
    encoder = write_encoder(tmp_path / "encoder.keras")
    folder = tmp_path / "run"
    assert run(encoder, images, folder, eval_crops=2, train_epochs=1, head_only=True) == 0
    with (folder / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    trained = open_trained(str(folder))
    assert trained.crops == 2
    classes = trained.class_names
    wanted = []
    for row in rows:
        pixels = tf.constant(read_image(images / row["path"], 3))
        assert pixels.shape[1] > pixels.shape[0]
        crops = evaluation_crops(pixels, trained.preprocessing.views, 2)
        batch = tf.image.convert_image_dtype(crops, tf.float32)
        logits = trained.network.head(trained.network.features(batch))
        wanted.append(softmax(np.mean(logits, axis=0, keepdims=True))[0])
    reported = [[float(row[f"score_{name}"]) for name in classes] for row in rows]
    np.testing.assert_allclose(reported, wanted, atol=1e-5)
    listed = Manifest.load(folder / "manifest.csv").split("test")
    np.testing.assert_allclose(BatchScorer(trained, 4).scores(listed), wanted, atol=1e-5)
