"""Floors of `simclr-run --train_mode=finetune`, in its result and its last lines."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_prep.manifest.scan import scan_folder
from data_prep.sources.manifest_source import ManifestSource
from simclr_tf.cli.run import main
from simclr_tf.config.sections import MachineSettings
from simclr_tf.training.distribution import connect
from simclr_tf.training.floors import flat_pixels, raw_pixels
from tests.images import make_split_folder


def test_raw_pixels_are_means_over_areas_of_all_channels() -> None:
    images = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)
    areas = images.reshape(2, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    found = flat_pixels(tf.constant(images))
    np.testing.assert_allclose(found, areas.reshape(2, -1), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("central", [0.0, 0.5])
def test_raw_pixels_of_files_are_those_of_the_whole_image(tmp_path: Path, central: float) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 96), dtype=np.uint8)
    for i, image in enumerate(images):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    manifest = scan_folder(str(tmp_path))
    found = raw_pixels(ManifestSource(manifest), connect(MachineSettings()), central)
    order = [int(Path(record.path).stem) for record in manifest.records]
    for row, i in zip(found, order, strict=True):
        kept = images[i, 16:48, 32:64] if central else images[i]
        h, w = kept.shape[0] // 16, kept.shape[1] // 16
        means = kept.reshape(16, h, 16, w).mean(axis=(1, 3)) / 255
        np.testing.assert_allclose(row.reshape(16, 16), means, atol=1e-5)


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
    code = main(arguments)
    assert code == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    floors = result["floors"]
    names = [floor["name"] for floor in floors["floors"]]
    assert names == ["majority", "raw_pixels", "untrained features"]
    assert floors["network"]["value"] == pytest.approx(result["test/label_top_1_accuracy"])
    majority = floors["floors"][0]["metrics"]["accuracy"]
    assert majority["value"] == pytest.approx(1 / 3)
    assert majority["low"] < 1 / 3 < majority["high"]
    told = capfd.readouterr().err
    assert floors["sentence"] in told
    assert "top_1" in told
    assert "top_5" not in told  # three classes: always right
    assert "eval/label_top_5_accuracy" in result
