"""What files become: a rule found in training is the rule of every later command."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.manifest.manifest import Manifest
from data_prep.reading.spec import parse_reading
from data_prep.reading.training_files import TrainingReading
from finetune.cli.predict import main
from simclr_tf.checkpoints.load import load_encoder, open_checkpoint
from simclr_tf.checkpoints.preprocessing import Preprocessing
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.data import open_data
from simclr_tf.training.from_checkpoint import Origins, adopt_checkpoint
from simclr_tf.training.run import execute
from tests.simclr_tf.checkpoints.common import path_of

RUN: dict[str, Any] = {
    "mode": "train_then_eval",
    "floors": False,
    "train_mode": "finetune",
    "resnet_depth": 18,
    "width_multiplier": 0.125,
    "image_size": 16,
    "train_batch_size": 4,
    "eval_batch_size": 8,
    "train_steps": 2,
    "learning_rate": 0.5,
    "precision": "float32",
    "health_watch": False,
}


def write_sky(root: Path) -> Path:
    """Images with NaN whose range differs widely between splits: CHW, two bands."""
    rng = np.random.default_rng(0)
    for split, scale in (("train", 100.0), ("validation", 300.0)):
        for label in ("lens", "none"):
            for number in range(4):
                image = rng.exponential(scale, (2, 20, 20)).astype(np.float32)
                image[0, 3, number] = np.nan
                folder = root / split / label
                folder.mkdir(parents=True, exist_ok=True)
                np.save(folder / f"{label}{number}.npy", image)
    return root


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("per", ["image", "set"])
def test_prediction_reads_as_the_training_did(tmp_path: Path, per: str) -> None:
    images, model_dir = write_sky(tmp_path / "sky"), tmp_path / "run"
    reading = {"axes": "CHW", "intensity": "percentile:1,99", "intensity_per": per, "nan": "min"}
    config = RunConfig.from_values(
        {**RUN, **reading, "image_dir": str(images), "model_dir": str(model_dir)}
    )
    assert execute(config) == 0
    record = json.loads((model_dir / "preprocessing.json").read_text())["reading"]
    training = np.stack([np.load(f) for f in sorted(images.glob("train/*/*.npy"))])
    if per == "set":
        low, high = np.nanpercentile(training.astype(np.float64), [1, 99])
        assert record["intensity"] == f"percentile(1,99)@{float(low)},{float(high)}"
    else:
        assert record["intensity"] == "percentile(1,99)"
    assert (record["axes"], record["nan"]) == ("CHW", "min")
    saved = Manifest.load(model_dir / "manifest.csv")
    rules = {str(parse_reading(r.reading).intensity) for r in saved.records}
    assert rules == {record["intensity"]}
    for written in ("encoder.keras", "saved_model/2", "ckpt-2"):
        assert load_encoder(model_dir / written).preprocessing["reading"] == record

    output = tmp_path / "p.csv"
    flags = [f"--checkpoint={model_dir / 'ckpt-2'}", f"--image_dir={images / 'validation'}",
             f"--output={output}", "--batch_size=8"]  # fmt: skip
    assert main(flags) == 0
    predicted = {Path(row["path"]).name: row for row in read_csv(output)}
    evaluated = read_csv(model_dir / "predictions_validation.csv")
    assert len(evaluated) == len(predicted) == 8
    for row in evaluated:
        mine = predicted[Path(row["path"]).name]
        scores = {mine[f"class_{k}"]: mine[f"score_{k}"] for k in (1, 2)}
        assert scores == {"lens": row["score_lens"], "none": row["score_none"]}

    # With another rule the scores would differ: the test above sees it.
    other = tmp_path / "other.csv"
    flags = [*flags[:2], f"--output={other}", "--batch_size=8", "--intensity=minmax"]
    assert main(flags) == 0
    assert [r["score_1"] for r in read_csv(other)] != [r["score_1"] for r in read_csv(output)]


def plain_config(**values: Any) -> RunConfig:
    return RunConfig.from_values({**RUN, **values})


def test_limits_of_the_set_are_those_of_the_training_split(tmp_path: Path) -> None:
    images = write_sky(tmp_path)
    config = plain_config(
        image_dir=str(images), axes="CHW", intensity="minmax", intensity_per="set", nan="zero"
    )
    data = open_data(config)
    training = np.stack([np.load(f) for f in sorted(images.glob("train/*/*.npy"))])
    rule = f"minmax@{float(np.nanmin(training))},{float(np.nanmax(training))}"
    assert data.reading.changes() == {"axes": "CHW", "intensity": rule, "nan": "zero"}
    assert data.channels == 2


def test_tiles_of_a_picture_share_a_split_and_few_labels_are_counted_by_tile(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        for number in range(4):
            (tmp_path / label).mkdir(exist_ok=True)
            np.save(tmp_path / label / f"{number}.npy", rng.random((20, 20)))
    config = plain_config(
        image_dir=str(tmp_path), tile=10, labels_per_class=3,
        split_ratios="train:0.5,validation:0.5",
    )  # fmt: skip
    data = open_data(config)
    assert data.manifest is not None
    splits = {(r.path, r.split) for r in data.manifest.records}
    assert (len(data.manifest), len(splits)) == (32, 8)
    assert data.train.num_examples == 6
    assert data.reading.tile == 10


@pytest.mark.parametrize("given", ["", "intensity"])
def test_a_run_that_starts_from_a_checkpoint_reads_as_it_did(
    caplog: pytest.LogCaptureFixture, given: str
) -> None:
    rule = "sqrt(0,100)@2.5,70.0"
    path = str(path_of("tf1_tiny_r18_w8_cifar_pretrain"))
    reading = TrainingReading({"intensity": rule, "nan": "min", "tile": 8})
    record = Preprocessing(16, 3, reading=reading).record()
    start = replace(open_checkpoint(path), preprocessing=record)
    config = plain_config(checkpoint=path, intensity="minmax" if given else "none")
    adopted = adopt_checkpoint(config, {"image_size", given} - {""}, Origins(start))
    assert adopted.reading.intensity == ("minmax" if given else rule)
    assert (adopted.reading.nan, adopted.reading.tile) == ("min", 0)
    assert ("the network has seen images read with sqrt" in caplog.text) == bool(given)
