"""Whole runs of methods that own more than the network: what they leave, how they go on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.checkpoints.load import load_encoder
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.run import execute
from tests.images import make_split_folder

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {
    "mode": "train_then_eval",
    "floors": False,
    "image_size": 32,
    "resnet_depth": 18,
    "width_multiplier": 0.0625,
    "train_batch_size": 8,
    "eval_batch_size": 8,
    "train_steps": 4,
    "checkpoint_steps": 2,
    "warmup_epochs": 0.0,
    "learning_rate": 1.0,
    "precision": "float32",
    "linear_probe": False,
    "queue_size": 16,
    "prototypes": 8,
    "small_crops": 2,
    "frozen_prototype_steps": 1,
    "assignment_queue": 16,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"))


def run(images: Path, model_dir: Path, **values: Any) -> dict[str, Any]:
    given = {**TINY, "image_dir": str(images), "model_dir": str(model_dir), **values}
    assert execute(RunConfig.from_values(given)) == 0
    return json.loads((model_dir / "result.json").read_text())


@pytest.mark.parametrize(
    "method", ["moco", pytest.param("swav", marks=pytest.mark.thorough)]
)  # what BYOL keeps, MoCo keeps too
def test_a_run_goes_on_exactly_and_hands_out_the_online_network(
    images: Path, tmp_path: Path, method: str
) -> None:
    result = run(images, tmp_path / "run", method=method)
    assert 0 <= result["validation/knn_accuracy"] <= 1
    before = read_metrics(tmp_path / "run" / "metrics.csv")["total_loss"]
    for file in (tmp_path / "run").glob("ckpt-4*"):
        file.unlink()  # as if the run had been killed after its second step
    run(images, tmp_path / "run", method=method)
    after = read_metrics(tmp_path / "run" / "metrics.csv")
    np.testing.assert_array_equal(after["step"], [1, 2, 3, 4])
    np.testing.assert_allclose(after["total_loss"], before, rtol=1e-6)

    x = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    features = load_encoder(tmp_path / "run" / "ckpt-4")(x)
    np.testing.assert_allclose(
        load_encoder(tmp_path / "run" / "encoder.keras")(x), features, atol=1e-6
    )
    loaded = tf.saved_model.load(str(tmp_path / "run" / "saved_model" / "4"))
    endpoints = loaded(tf.constant(x), trainable=False)
    np.testing.assert_allclose(endpoints["final_avg_pool"], features, atol=1e-6)

    tuned = run(
        images, tmp_path / "tuned", train_mode="finetune", checkpoint=str(tmp_path / "run"),
        head_only=True, train_steps=1,
    )  # fmt: skip
    moved = {name for name, part in tuned["blocks"].items() if part["moved"]}
    assert moved == {"supervised_head"}


def test_the_momentum_network_starts_from_the_weights_that_the_run_starts_from(
    images: Path, tmp_path: Path
) -> None:
    run(images, tmp_path / "first", train_steps=2)
    run(
        images, tmp_path / "second", method="byol", checkpoint=str(tmp_path / "first"),
        train_steps=1, learning_rate=0.0, target_momentum=1.0,
    )  # fmt: skip
    reader = tf.train.load_checkpoint(str(tmp_path / "second" / "ckpt-1"))
    names = reader.get_variable_to_shape_map()
    kernels = {
        reader.get_tensor(name).tobytes() for name, shape in names.items()
        if name.startswith("model/") and len(shape) > 1 and "supervised" not in name
    }  # fmt: skip
    targets = {
        reader.get_tensor(name).tobytes() for name, shape in names.items()
        if name.startswith("method/momentum_network") and len(shape) > 1
    }  # fmt: skip
    assert len(targets) > 20
    assert targets == kernels
