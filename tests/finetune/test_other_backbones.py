"""From pretraining to a prediction and an export with backbones that are no ResNets."""

import csv
from pathlib import Path

import keras
import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.manifest.read_options import Declaration
from finetune.export.export import ExportRequest, export
from finetune.export.plain_keras import standard_model
from finetune.predict import PredictSettings, list_images, predict_images
from finetune.trained import open_trained
from simclr_tf.checkpoints.preprocessing import Preprocessing, write_record
from simclr_tf.checkpoints.write import export_keras, write_model
from simclr_tf.config.run_config import RunConfig
from simclr_tf.models.weights import variables_hash
from simclr_tf.training.evaluator import simclr_outputs
from simclr_tf.training.run import execute
from tests.finetune import runs
from tests.images import make_split_folder
from tests.simclr_tf.backbones import FLAGS, QUICK, SIZE, SMALL, encoder, images, model

PRETRAIN = {
    "image_size": 32, "train_batch_size": 8, "eval_batch_size": 8, "train_steps": 4,
    "checkpoint_steps": 2, "warmup_epochs": 0.0, "optimizer": "adamw", "learning_rate": 0.03,
    "precision": "float32", "health_watch": False, "mode": "train_then_eval", "floors": False,
}  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_standard_layers_compute_what_the_network_computes(name: str) -> None:
    network = model(name, channels=2)
    x = images(2)
    rebuilt = standard_model(network, SIZE)
    assert {type(layer).__module__.split(".")[0] for layer in rebuilt.layers} == {"keras"}
    found, expected = rebuilt(x, training=False), simclr_outputs(network)(x)
    for output, value in expected.items():
        np.testing.assert_allclose(found[output], value, rtol=1e-3, atol=2e-4, err_msg=output)
    assert float(np.ptp(expected["features"], axis=0).max()) > 1e-3


def test_a_rebuilt_transformer_is_a_file_of_keras_alone(tmp_path: Path) -> None:
    rebuilt = standard_model(model("vit_tiny"), SIZE)
    rebuilt.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras", compile=False)
    x = images()
    np.testing.assert_array_equal(again(x)["logits"], rebuilt(x)["logits"])


@pytest.mark.slow
def test_a_transformer_is_exported_for_onnxruntime(tmp_path: Path) -> None:
    """Which knows no erfc, what TensorFlow makes GELU of."""
    network = model("vit_tiny")
    record = network.encoder.preprocessing = Preprocessing(SIZE, 3, ("a", "b", "c")).record()
    write_model(network, tmp_path / "run", "tf2")
    write_record(tmp_path / "run", record)
    trained = open_trained(str(tmp_path / "run"))
    assert export(trained, tmp_path / "m.onnx", ExportRequest("onnx")).on_noise < 1e-5


@pytest.mark.thorough
@pytest.mark.slow
def test_a_pretrained_backbone_is_fine_tuned_frozen_where_asked_scored_and_exported(
    tmp_path: Path,
) -> None:
    name = "keras:mobilenetv3small"
    folder = make_split_folder(tmp_path / "images")
    pretrained = tmp_path / "pretrained"
    values = {**PRETRAIN, **FLAGS[name], "image_dir": str(folder), "model_dir": str(pretrained)}
    assert execute(RunConfig.from_values(values)) == 0
    assert execute(RunConfig.from_values(values)) == 0, "the same command goes on"
    output = tmp_path / "finetuned"
    given = {"train_blocks": "3,4", "train_epochs": 1, "head": "5"}
    assert runs.run(pretrained, folder, output, **given) == 0
    before = keras.models.load_model(pretrained / "encoder.keras").backbone()
    trained = open_trained(str(output))
    after = trained.network.backbone.encoder.backbone()  # type: ignore[union-attr]
    for number, stage in before.stages.items():
        same = variables_hash(stage.variables) == variables_hash(after.stages[number].variables)
        assert same == (number <= 2), number
    listed = list_images(str(folder / "test"), "", Declaration())
    predict_images(trained, listed, tmp_path / "p.csv", PredictSettings(batch_size=8))
    with (tmp_path / "p.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(listed.manifest)
    assert export(trained, tmp_path / "m.onnx", ExportRequest("onnx")).on_noise < 1e-5


def test_images_too_small_for_an_encoder_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    network = encoder("vit_tiny", backbone={**SMALL["vit_tiny"]["backbone"], "patch_size": 16})
    network.preprocessing = Preprocessing(32, 3).record()
    export_keras(network, tmp_path / "encoder.keras")
    folder = make_split_folder(tmp_path / "images")
    with pytest.raises(UserError, match=r"--image_size=8: is smaller than a patch"):
        runs.run(tmp_path / "encoder.keras", folder, tmp_path / "out", image_size=8)
    assert not (tmp_path / "out").exists()
