"""`simclr pretrain` and `simclr finetune` with nothing but places."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.manifest.scan import image_facts, scan_folder
from finetune.cli import finetune
from simclr_tf.cli import pretrain
from simclr_tf.config.defaults import CHOSEN, suggest_settings
from simclr_tf.config.run_config import RunConfig
from tests.images import make_split_folder


def suggested(
    folder: Path, images: int, memory: float = 2.0**35, **known: int
) -> dict[str, object]:
    facts = image_facts(scan_folder(folder))
    return {s.setting: s.value for s in suggest_settings(images, facts, memory, gpu=False, **known)}


def test_sizes_follow_images_and_memory(tmp_path: Path) -> None:
    small = make_split_folder(tmp_path / "small", train=2, held_out=1, size=40)
    large = make_split_folder(tmp_path / "large", train=2, held_out=1, size=200)
    assert suggested(small, 300)["image_size"] == 32
    assert suggested(large, 300)["image_size"] == 96
    assert tuple(suggested(large, 300)) == CHOSEN
    roomy, narrow = suggested(large, 3000), suggested(large, 3000, memory=2.0**31)
    assert (roomy["train_batch_size"], narrow["train_batch_size"]) == (64, 32)
    assert roomy["width_multiplier"] > narrow["width_multiplier"]


@pytest.mark.parametrize("images", [1, 20, 300, 5000, 10**6])
def test_every_choice_is_a_legal_setting_and_makes_updates(tmp_path: Path, images: int) -> None:
    folder = make_split_folder(tmp_path / "i", train=2, held_out=1, size=40)
    values = suggested(folder, images)
    config = RunConfig.from_values(values)  # refuses what is not legal
    updates = images * config.train.train_epochs / config.train.train_batch_size
    assert updates >= min(1000, images * 1000 / config.train.train_batch_size)
    few = suggested(folder, images, epochs=2, batch=4)
    assert (few["train_epochs"], few["train_batch_size"], few["checkpoint_epochs"]) == (2, 4, 1)


@pytest.mark.slow
def test_two_places_make_an_encoder_and_a_classifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = make_split_folder(tmp_path / "images", train=8, held_out=6, size=40)
    out, classifier = tmp_path / "out", tmp_path / "classifier"
    quick = ["--train_epochs=2", "--width_multiplier=0.125", "--nofloors"]
    assert pretrain.main([str(images), str(out), *quick]) == 0
    said = capsys.readouterr().err
    assert "--image_size=32: the images' shorter side is 40 pixels" in said
    assert "--width_multiplier" not in said
    config = RunConfig.load(out / "config.json")
    assert (config.views.image_size, config.model.width_multiplier) == (32, 0.125)
    # What was chosen stays chosen, though there are other images now; the same command is done.
    make_split_folder(images, train=30, held_out=6, size=40)
    assert pretrain.main([str(images), str(out), *quick]) in (0, 1)
    assert RunConfig.load(out / "config.json") == config
    again = ["--train_epochs=1", "--nofloors"]
    assert finetune.main([str(out), str(classifier), *again]) == 0
    said = capsys.readouterr().err
    assert f"images, labels and splits are those of {out / 'manifest.csv'}" in said
    results = json.loads((classifier / "report.json").read_text())
    assert np.isfinite(results["splits"]["test"]["metrics"]["accuracy"]["value"])
