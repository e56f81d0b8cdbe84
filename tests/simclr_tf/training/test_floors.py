"""Floors of `simclr-run --train_mode=finetune`, in its result and its last lines."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data_prep.cli.app import run_app
from simclr_tf.cli.run import define, run
from simclr_tf.training.floors import grey
from tests.images import make_split_folder


def test_grey_pictures_are_means_over_areas() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((2, 32, 32, 3)).astype(np.float32)
    single = images @ np.array([0.299, 0.587, 0.114], np.float32)
    areas = single.reshape(2, 16, 2, 16, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(grey(tf.constant(images))[..., 0], areas, atol=1e-5)
    bands = rng.random((1, 16, 16, 5)).astype(np.float32)
    np.testing.assert_allclose(grey(tf.constant(bands))[..., 0], bands.mean(axis=-1), atol=1e-5)


@pytest.mark.slow
def test_an_evaluation_says_whether_the_classifier_is_above_simpler_methods(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = make_split_folder(tmp_path / "images", 8, 6, 32)
    arguments = [
        "--image_size=32", "--resnet_depth=18", "--width_multiplier=0.0625", "--warmup_epochs=0",
        "--train_batch_size=8", "--eval_batch_size=8", "--precision=float32", "--nohealth_watch",
        "--train_mode=finetune", "--mode=train_then_eval", "--train_epochs=1",
        "--eval_split=test", f"--image_dir={images}",
    ]  # fmt: skip
    arguments.append(f"--model_dir={tmp_path / 'run'}")
    code = run_app(run, define, arguments, name="simclr-run")
    assert code == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    floors = result["floors"]
    names = [floor["name"] for floor in floors["floors"]]
    assert names == ["majority", "pixels", "untrained features"]
    assert floors["network"]["value"] == pytest.approx(result["test/label_top_1_accuracy"])
    majority = floors["floors"][0]["metrics"]["accuracy"]
    assert majority["value"] == pytest.approx(1 / 3)
    assert majority["low"] < 1 / 3 < majority["high"]
    told = capfd.readouterr().err
    assert floors["sentence"] in told
    assert "top_1" in told
    assert "top_5" not in told  # three classes: always right
    assert "eval/label_top_5_accuracy" in result
