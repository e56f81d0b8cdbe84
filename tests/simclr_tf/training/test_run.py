"""Whole runs on small images: what they leave, how they stop and go on, what they refuse."""

import csv
import html
import json
import logging
import signal
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from simclr_tf.checkpoints.find import locate
from simclr_tf.cli.run import COMMAND
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.run import execute
from simclr_tf.training.run_warnings import read_warnings
from tests.images import make_folder, make_split_folder

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {
    "image_size": 32,
    "resnet_depth": 18,
    "width_multiplier": 0.0625,
    "train_batch_size": 8,
    "eval_batch_size": 8,
    "train_steps": 6,
    "checkpoint_steps": 2,
    "warmup_epochs": 0.0,
    "learning_rate": 1.0,
    "precision": "float32",
    "health_watch": False,
    "floors": False,
}


def config(images: Path, model_dir: Path, **values: Any) -> RunConfig:
    return RunConfig.from_values(
        {**TINY, "image_dir": str(images), "model_dir": str(model_dir), **values}
    )


def losses(model_dir: Path) -> np.ndarray:
    return read_metrics(model_dir / "metrics.csv")["total_loss"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def pretrained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model_dir = tmp_path_factory.mktemp("runs") / "pretrain"
    assert execute(config(images, model_dir, mode="train_then_eval", floors=True)) == 0
    return model_dir


@pytest.fixture(scope="module")
def finetuned(images: Path, pretrained: Path) -> Path:
    model_dir = pretrained.parent / "finetune"
    values = {
        "mode": "train_then_eval",
        "train_mode": "finetune",
        "checkpoint": str(pretrained / "ckpt-6"),
        "eval_split": "test",
        "validate_every": 1,
    }
    assert execute(config(images, model_dir, **values)) == 0
    return model_dir


def test_a_run_leaves_everything_that_it_promises(pretrained: Path) -> None:
    names = {p.name for p in pretrained.iterdir()}
    assert names >= {
        "config.json", "flags.json", "flags.txt", "environment.json", "manifest.csv",
        "metrics.csv", "ckpt-6.index", "result.json", "result_6.json", "encoder.keras",
        "predictions_validation.csv", "saved_model", "views.png",
    }  # fmt: skip
    assert any(name.startswith("events.out") for name in names)
    with Image.open(pretrained / "views.png") as sheet:
        assert sheet.size == (8 * 34 - 2, 2 * 34 - 2), "two views of eight images, 32 px each"
        assert len(np.unique(np.asarray(sheet))) > 50
    assert list(read_metrics(pretrained / "metrics.csv")["step"]) == [1, 2, 3, 4, 5, 6]
    result = json.loads((pretrained / "result.json").read_text())
    assert result["global_step"] == 6
    assert result["eval_split"] == "validation"
    assert result["num_eval_examples"] == 12
    assert result["num_train_examples"] == 24
    assert result["eval/label_top_1_accuracy"] == result["validation/label_top_1_accuracy"]
    for name in ("label_top_1", "knn", "linear_probe"):
        value = result[f"validation/{name}_accuracy"]
        assert 0 <= value <= 1
        low = result[f"validation/{name}_accuracy_low"]
        assert low <= value <= result[f"validation/{name}_accuracy_high"]


def test_a_pretraining_says_first_whether_its_features_are_above_simpler_methods(
    pretrained: Path,
) -> None:
    result = json.loads((pretrained / "result.json").read_text())
    floors = result["floors"]
    assert [floor["name"] for floor in floors["floors"]] == [
        "majority", "raw_pixels", "untrained features",
    ]  # fmt: skip
    probe = result["validation/linear_probe_accuracy"]
    assert floors["network"]["value"] == pytest.approx(probe)
    assert floors["sentence"].startswith("A linear probe on the features: ")
    for floor in floors["floors"]:
        for interval in (*floor["metrics"].values(), floor["difference"]):
            assert interval["low"] is None or interval["low"] < interval["high"]
    page = (pretrained / "report.html").read_text()
    summary = page[page.index("</h1>") :]
    first = summary[summary.index("<p") :].split(">", 1)[1].split("</p>", 1)[0]
    assert html.unescape(first.replace("<wbr>", "")).strip() == floors["sentence"]
    for warning in read_warnings(pretrained / "warnings.csv"):
        assert warning.message in html.unescape(page.replace("<wbr>", ""))
    assert "accuracy of k-NN on the features" in page


def test_an_evaluation_without_labels_says_that_floors_do_not_apply(tmp_path: Path) -> None:
    bare = make_folder(tmp_path, 16, classes=("flat",)) / "flat"
    values = {"mode": "train_then_eval", "floors": True, "train_steps": 2}
    assert execute(config(bare, tmp_path / "run", **values)) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["no_floors"].startswith("Floors do not apply")
    assert result["no_floors"] in html.unescape((tmp_path / "run" / "report.html").read_text())


def test_the_floor_and_the_warnings_of_a_run_are_kept(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """k-NN of the network as it was drawn, and whatever was warned of, outlive the terminal."""
    values = {"validate_every": 1, "health_watch": True, "mode": "train_then_eval"}
    model_dir = tmp_path / "run"
    with caplog.at_level(logging.INFO):
        assert execute(config(images, model_dir, **values)) == 0
    start = json.loads((model_dir / "start_scores.json").read_text())
    floor = start["validation/knn_accuracy"]
    drawn = tmp_path / "drawn"  # a rate of 0 leaves everything where it was, but the statistics
    still = {"learning_rate": 0.0, "train_steps": 1, "batch_norm_decay": 1.0}
    assert execute(config(images, drawn, mode="train_then_eval", **still)) == 0
    assert json.loads((drawn / "result.json").read_text())["validation/knn_accuracy"] == floor
    result = json.loads((model_dir / "result.json").read_text())
    assert result["validation/start_knn_accuracy"] == floor
    assert f"({floor:.3f} before training)" in caplog.text
    assert "top_5" not in caplog.text, "there are three classes"
    said = read_warnings(model_dir / "warnings.csv")
    assert "only 6 updates in all" in said[0].message
    logged = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert {str(w) for w in said} <= set(logged)
    assert {w.step for w in said if w.kind == "chance"} <= {6}


def test_the_numbers_in_result_json_are_those_of_the_predictions(finetuned: Path) -> None:
    with (finetuned / "predictions_test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    manifest = Manifest.load(finetuned / "manifest.csv").split("test")
    pairs = zip(rows, manifest.files(), strict=True)
    assert all(file.endswith(row["path"]) for row, file in pairs)
    assert [row["true"] for row in rows] == [r.label for r in manifest.records]
    result = json.loads((finetuned / "result.json").read_text())
    right = np.mean([row["true"] == row["predicted"] for row in rows])
    assert result["test/label_top_1_accuracy"] == right
    scores = np.array([[float(row[f"score_{c}"]) for c in manifest.class_names] for row in rows])
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    true = scores[np.arange(len(rows)), [manifest.class_names.index(r["true"]) for r in rows]]
    assert result["test/supervised_loss"] == pytest.approx(-np.log(true).mean(), rel=1e-5)


def test_the_saved_model_answers_as_the_public_ones_and_trains_as_a_whole(finetuned: Path) -> None:
    loaded = tf.saved_model.load(str(finetuned / "saved_model" / "6"))
    x = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    endpoints = loaded(x, trainable=False)
    assert set(endpoints) == {
        "initial_conv", "initial_max_pool", "block_group1", "block_group2", "block_group3",
        "block_group4", "final_avg_pool", "proj_head_input", "proj_head_output", "logits_sup",
    }  # fmt: skip
    encoder = keras.models.load_model(finetuned / "encoder.keras")
    np.testing.assert_allclose(encoder(x), endpoints["final_avg_pool"], atol=1e-5)
    assert encoder.preprocessing["image_size"] == 32
    assert encoder.preprocessing["class_names"] == ["checks", "dots", "stripes"]

    before = [v.numpy() for v in loaded.variables]
    with tf.GradientTape() as tape:
        logits = loaded(x, trainable=True)["logits_sup"]
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1, 2, 0], logits))
    gradients = tape.gradient(loss, loaded.trainable_variables_list)
    reached = [g is not None and float(tf.reduce_max(tf.abs(g))) > 0 for g in gradients]
    assert sum(reached) > 50
    moved = sum(
        not np.array_equal(b, v.numpy()) for b, v in zip(before, loaded.variables, strict=True)
    )
    assert moved > 0, "moving statistics follow the batch when trainable=True"


def test_finetuning_starts_from_the_checkpoint(
    images: Path, pretrained: Path, tmp_path: Path
) -> None:
    frozen = config(
        images, tmp_path / "run", train_mode="finetune", checkpoint=str(pretrained),
        fine_tune_after_block=4, train_steps=2,
    )  # fmt: skip
    assert execute(frozen) == 0
    before = tf.train.load_checkpoint(str(pretrained / "ckpt-6"))
    after = tf.train.load_checkpoint(str(tmp_path / "run" / "ckpt-2"))
    base = [k for k in before.get_variable_to_shape_map() if k.startswith("model/resnet_model")]
    assert len(base) > 100
    for key in base:
        np.testing.assert_array_equal(before.get_tensor(key), after.get_tensor(key), err_msg=key)
    head = [k for k in after.get_variable_to_shape_map() if k.startswith("model/supervised_head")]
    assert any(not np.array_equal(before.get_tensor(key), after.get_tensor(key)) for key in head)


def test_zero_init_logits_layer_zeroes_the_restored_head(
    images: Path, pretrained: Path, tmp_path: Path
) -> None:
    values: dict[str, Any] = {
        "train_mode": "finetune", "checkpoint": str(pretrained), "zero_init_logits_layer": True,
        "train_steps": 1, "learning_rate": 0.0,
    }  # fmt: skip
    for quirk, largest in (("", 0.0), ("zero_init_logits", 1e-3)):
        run = tmp_path / f"run{quirk}"
        execute(config(images, run, reference_quirks=quirk, **values))
        reader = tf.train.load_checkpoint(str(run / "ckpt-1"))
        keys = [k for k in reader.get_variable_to_shape_map() if "supervised_head" in k]
        top = max(np.abs(reader.get_tensor(k)).max() for k in keys)
        assert (top == 0) if largest == 0 else (top > largest)


def test_the_same_run_twice_gives_the_same_losses(
    images: Path, pretrained: Path, tmp_path: Path
) -> None:
    execute(config(images, tmp_path / "again", mode="train_then_eval"))
    np.testing.assert_array_equal(losses(tmp_path / "again"), losses(pretrained))


def test_a_run_that_was_asked_to_stop_goes_on_to_the_same_losses(
    images: Path, pretrained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    whole = config(images, run, mode="train_then_eval")
    metrics = run / "metrics.csv"

    def ask() -> None:
        while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
            pass
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=ask, daemon=True).start()
    assert execute(whole) == 128 + signal.SIGTERM
    reached = len(losses(run))
    assert 3 <= reached < 6, "stopped in the middle"
    assert (run / f"ckpt-{reached}.index").exists()
    assert execute(whole) == 0
    np.testing.assert_array_equal(losses(run), losses(pretrained))


def test_a_damaged_last_checkpoint_is_named_and_the_one_before_used(
    images: Path, pretrained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    execute(config(images, run, mode="train_then_eval"))
    data = run / "ckpt-6.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    data.write_bytes(bytes(content))
    with caplog.at_level(logging.INFO):
        execute(config(images, run, mode="train_then_eval"))
    assert "ckpt-6 is missing or damaged" in caplog.text
    assert "going on from ckpt-4" in caplog.text
    np.testing.assert_array_equal(losses(run), losses(pretrained))


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"is (nan|inf) at step \d+.*learning_rate"):
        execute(config(images, run, optimizer="momentum", learning_rate=1e25, train_steps=40))
    for file in run.glob("ckpt-*.index"):
        reader = tf.train.load_checkpoint(str(file.with_suffix("")))
        for key in reader.get_variable_to_shape_map():
            if key.startswith("model/"):
                assert np.isfinite(reader.get_tensor(key)).all(), f"{file.name}: {key}"


def test_other_images_in_the_same_folder_are_refused(images: Path, tmp_path: Path) -> None:
    own = make_folder(tmp_path / "images", per_class=8)
    run = tmp_path / "run"
    execute(config(own, run, train_steps=2))
    next((own / "dots").iterdir()).unlink()
    with pytest.raises(UserError, match=r"are not those that the run .* began with"):
        execute(config(own, run, train_steps=2))


def test_a_folder_without_splits_gets_a_stratified_one(images: Path, tmp_path: Path) -> None:
    own = make_folder(tmp_path / "images", per_class=20)
    execute(config(own, tmp_path / "run", train_steps=2))
    manifest = Manifest.load(tmp_path / "run" / "manifest.csv")
    sizes = {split: len(manifest.split(split)) for split in manifest.splits}
    assert sizes == {"train": 42, "validation": 9, "test": 9}


def test_eval_mode_scores_a_finished_run(images: Path, pretrained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    execute(config(images, run, train_steps=2))
    assert not (run / "result.json").exists()
    assert not (run / "saved_model").exists()
    encoder = keras.models.load_model(run / "encoder.keras")
    execute(config(images, run, train_steps=2, mode="eval"))
    loaded = tf.saved_model.load(str(run / "saved_model" / "2"))
    x = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    features = loaded(x, trainable=False)["final_avg_pool"]
    np.testing.assert_allclose(encoder(x), features, atol=1e-5)
    result = json.loads((run / "result_2.json").read_text())
    assert result["global_step"] == 2
    with pytest.raises(UserError, match=r"no new checkpoint .* within"):
        execute(config(images, tmp_path / "none", mode="eval", eval_timeout=0.1))


def test_training_goes_on_from_validation_to_the_best_checkpoint(finetuned: Path) -> None:
    table = read_metrics(finetuned / "validation.csv")
    assert list(table["step"]) == [2, 4, 6]
    scores = table["validation/label_top_1_accuracy"]
    best = int(table["step"][int(np.argmax(scores))])
    assert {p.name for p in (finetuned / "best").iterdir()} == {
        f"ckpt-{best}.index",
        f"ckpt-{best}.data-00000-of-00001",
        "checkpoint",
    }
    assert locate(str(finetuned / "best")).path.endswith(f"best/ckpt-{best}")


@pytest.mark.parametrize("start", ["", "best"])
def test_images_that_the_weights_have_seen_are_named(
    images: Path, finetuned: Path, start: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = {
        "train_mode": "finetune", "checkpoint": str(finetuned / start), "train_steps": 1,
        "train_split": "validation", "eval_split": "train",
    }  # fmt: skip
    execute(config(images, tmp_path / "run", **values))
    assert "24 of 24 train images were training images" in caplog.text


def test_early_stopping_stops_for_good(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    values = {
        "train_mode": "finetune", "learning_rate": 0.0, "early_stopping_patience": 2,
        "validate_every": 1, "train_steps": 40,
    }  # fmt: skip
    assert execute(config(images, run, **values)) == 0
    # Nothing changes at rate 0 but moving statistics: the third validation is no better.
    reached = len(losses(run))
    assert reached < 40
    assert json.loads((run / "stopped_early.json").read_text()) == {"step": reached}
    assert (run / "encoder.keras").exists()

    for interrupted in (False, True):
        if interrupted:  # killed after the last validation, before it was noted that it ended
            (run / "stopped_early.json").unlink()
        files = {p.name for p in run.glob("ckpt-*")}
        with caplog.at_level(logging.INFO):
            assert execute(config(images, run, **values)) == 0
        assert len(losses(run)) == reached, "the same command trains no further"
        assert {p.name for p in run.glob("ckpt-*")} == files
        assert json.loads((run / "stopped_early.json").read_text()) == {"step": reached}
    assert f"training was complete at step {reached} (stopped early)" in caplog.text

    assert execute(config(images, run, mode="eval", eval_timeout=0.1, **values)) == 0
    assert json.loads((run / "result.json").read_text())["global_step"] == reached


def test_a_run_whose_end_is_damaged_stops_early_again(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    values = {
        "train_mode": "finetune", "learning_rate": 0.0, "early_stopping_patience": 2,
        "validate_every": 1, "train_steps": 40,
    }  # fmt: skip
    execute(config(images, run, **values))
    reached = losses(run)
    (run / f"ckpt-{len(reached)}.data-00000-of-00001").write_bytes(b"")
    execute(config(images, run, **values))
    np.testing.assert_array_equal(losses(run), reached)
    assert json.loads((run / "stopped_early.json").read_text()) == {"step": len(reached)}


def test_flags_txt_replays_the_run(images: Path, pretrained: Path, tmp_path: Path) -> None:
    config, _ = COMMAND.parsed([f"--flagfile={pretrained / 'flags.txt'}"])
    assert config == RunConfig.load(pretrained / "config.json")


def test_replicas_train_as_one_device_does(images: Path, pretrained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    execute(config(images, run, num_cpu_devices=2, mode="train_then_eval"))
    np.testing.assert_allclose(losses(run)[:2], losses(pretrained)[:2], rtol=1e-4)
    mirrored = json.loads((run / "result.json").read_text())
    assert mirrored["num_eval_examples"] == 12
    assert (run / "saved_model" / "6").is_dir()
