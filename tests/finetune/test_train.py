"""Whole runs: what they leave, what they score and when, how they stop and go on."""

import csv
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from finetune import finish, train
from finetune.classifier import load_classifier
from finetune.epoch_scores import ImageScorer, split_scores
from finetune.report.files import read_results
from simclr_tf.checkpoints.load import load_encoder, load_model
from simclr_tf.training.callbacks import read_metrics
from tests.finetune.runs import run, write_encoder
from tests.images import make_folder, make_split_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"), train=7)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder.keras")


@pytest.fixture(scope="module")
def whole(images: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of the network trained, with dropout and layer-wise rates."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert run(encoder, images, output, **WHOLE) == 0
    return output


WHOLE: dict[str, Any] = {"head": "6", "dropout": 0.2, "layer_decay": 0.5, "vertical_flip": True}


def predictions(output: Path) -> list[dict[str, str]]:
    with (output / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def scores(rows: list[dict[str, str]]) -> np.ndarray:
    names = [name for name in rows[0] if name.startswith("score_")]
    return np.array([[float(row[name]) for name in names] for row in rows])


def losses(output: Path) -> np.ndarray:
    return read_metrics(output / "metrics.csv")["total_loss"]


def pictures(output: Path, size: int = 32) -> np.ndarray:
    """The images of all splits as the network takes them."""
    manifest = Manifest.load(output / "manifest.csv")
    files = [f for s in manifest.splits for f in manifest.split(s).files()]
    decoded = [tf.io.decode_png(tf.io.read_file(f)) for f in files]
    return np.stack(decoded).astype(np.float32) / 255


def test_a_run_leaves_everything_that_it_promises(whole: Path) -> None:
    names = {p.name for p in whole.iterdir()}
    assert names >= {
        "config.json", "flags.txt", "manifest.csv", "metrics.csv", "validation.csv", "history.csv",
        "best", "model.keras", "saved_model", "preprocessing.json", "report.json", "report.html",
        "predictions.csv", "views.png", "environment.json", "ckpt-9.index",
    }  # fmt: skip
    record = json.loads((whole / "preprocessing.json").read_text())
    assert record["class_names"] == ["checks", "dots", "stripes"]
    assert (record["image_size"], record["channels"], record["reading"]) == (
        32,
        3,
        {"exif": "apply"},
    )
    history = read_results(whole).history
    assert list(history["epoch"]) == [1, 2, 3]
    assert {"train/loss", "train/accuracy", "validation/loss", "validation/roc_auc"} <= set(history)
    page = (whole / "report.html").read_text()
    assert "What was trained" in page
    unbroken = " ".join(page.replace("\\\n", " ").split())  # a long command has several lines
    assert f"simclr-finetune --flagfile={whole}" in unbroken
    assert "/tmp" not in json.dumps(record)


def test_every_image_is_scored_once_and_by_its_own_label(whole: Path) -> None:
    rows = predictions(whole)
    manifest = Manifest.load(whole / "manifest.csv")
    # 21 + 12 + 12 images in passes of 16: no partial batch is dropped.
    assert Counter(r["split"] for r in rows) == {"train": 21, "validation": 12, "test": 12}
    true = {record.path: record.label for record in manifest.records}
    assert all(true[row["path"]] == row["true"] for row in rows)
    assert len({row["path"] for row in rows}) == 45


def test_the_exported_models_take_plain_images_and_give_what_was_scored(whole: Path) -> None:
    x, wanted = pictures(whole), scores(predictions(whole))
    model = load_classifier(whole / "model.keras")
    np.testing.assert_allclose(model(x), wanted, atol=1e-5)
    assert model.class_names == ("checks", "dots", "stripes")
    assert model.backbone.trainable_variables, "what is handed out trains as a whole"
    loaded = tf.saved_model.load(str(whole / "saved_model"))
    np.testing.assert_allclose(loaded.serve(x), wanted, atol=1e-5)


def test_the_weights_are_those_of_the_best_epoch_on_validation(whole: Path) -> None:
    history = read_results(whole).history
    keys = list(zip(-history["validation/accuracy"], history["validation/loss"], strict=True))
    best = min(range(len(keys)), key=lambda i: keys[i])
    held_out = [r for r in predictions(whole) if r["split"] == "validation"]
    names = ["checks", "dots", "stripes"]
    labels = np.array([names.index(r["true"]) for r in held_out])
    found = split_scores(np.log(scores(held_out)), labels)
    assert found["accuracy"] == pytest.approx(history["validation/accuracy"][best])
    assert found["loss"] == pytest.approx(history["validation/loss"][best], rel=1e-5)
    assert {p.name for p in (whole / "best").glob("*.index")} == {f"ckpt-{3 * (best + 1)}.index"}
    report = json.loads((whole / "report.json").read_text())
    assert report["splits"]["validation"]["metrics"]["accuracy"]["value"] == found["accuracy"]


def test_numbers_of_an_epoch_are_of_whole_sets_not_means_of_batches() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(21, 3)), rng.integers(-1, 3, 21)
    known = labels >= 0
    p = np.exp(logits[known]) / np.exp(logits[known]).sum(axis=1, keepdims=True)
    true = labels[known]
    found = split_scores(logits, labels)
    assert found["accuracy"] == np.mean(p.argmax(axis=1) == true)
    assert found["loss"] == pytest.approx(-np.log(p[np.arange(len(true)), true]).mean())
    recall = [np.mean(p[true == k].argmax(axis=1) == k) for k in range(3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recall))


def test_test_images_are_scored_once_at_the_end(
    images: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    logits = ImageScorer.logits

    def counted(self: ImageScorer, split: str) -> np.ndarray:
        scored.append(split)
        return logits(self, split)

    monkeypatch.setattr(ImageScorer, "logits", counted)
    values = {"train_epochs": 2, "head_only": True, "cache_features": "false"}
    assert run(encoder, images, tmp_path / "run", **values) == 0
    assert scored == ["train", "validation"] * 2 + ["train", "validation", "test"]
    assert run(encoder, images, tmp_path / "run", **values) == 0, "a complete run"
    assert scored.count("test") == 1


def test_a_head_alone_trains_on_features_computed_once_and_nothing_else_moves(
    images: Path, encoder: Path, tmp_path: Path
) -> None:
    values = {"head_only": True, "optimizer": "adam"}
    assert run(encoder, images, tmp_path / "cached", **values) == 0
    assert run(encoder, images, tmp_path / "whole", **values, cache_features="false") == 0
    np.testing.assert_allclose(
        losses(tmp_path / "cached"), losses(tmp_path / "whole"), rtol=1e-5, atol=1e-6
    )
    before = load_encoder(encoder)
    own: Any = load_classifier(tmp_path / "whole" / "model.keras").backbone
    pairs = zip(before.variables, own.encoder.variables, strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs), "statistics of normalisation included"
    page = (tmp_path / "whole" / "report.html").read_text()
    assert page.count("unchanged, bit for bit") == 6
    # A linear head is read by all that reads SimCLR's checkpoints.
    model = load_model(tmp_path / "cached" / "best")
    x = pictures(tmp_path / "cached")
    np.testing.assert_allclose(
        tf.nn.softmax(model(x)["logits_sup"]), scores(predictions(tmp_path / "cached")), atol=1e-5
    )


@pytest.mark.parametrize(
    "values",
    [WHOLE, pytest.param({"head_only": True, "sampling": "balanced"}, marks=pytest.mark.thorough)],
)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    images: Path, encoder: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    values = {**values, "train_epochs": 4}
    assert run(encoder, images, tmp_path / "straight", **values) == 0
    output = tmp_path / "halting"
    stops = [2, 6]  # of 3 steps an epoch: within one, and at an end
    with pytest.MonkeyPatch.context() as patch:
        for stop in stops:
            _stop_at(patch, stop)
            assert run(encoder, images, output, **values) == 143
            assert not (output / "report.html").exists()
    assert run(encoder, images, output, **values) == 0
    np.testing.assert_array_equal(losses(output), losses(tmp_path / "straight"))
    for name in ("validation.csv", "history.csv", "predictions.csv", "report.json"):
        same = (output / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
        assert same, name


def _stop_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Lets the next run be asked to stop after a step."""

    class Stops(train.cb.Progress):  # type: ignore[name-defined]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            super().on_train_batch_end(batch, logs)
            if logs["step"] >= step:
                REQUESTS[-1].signal = 15

    class Request(train.StopRequest):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            REQUESTS.append(self)

    patch.setattr(train.cb, "Progress", Stops)
    patch.setattr(train, "StopRequest", Request)


REQUESTS: list[Any] = []


def test_a_validation_that_a_kill_has_lost_is_made_up_for(
    images: Path, encoder: Path, tmp_path: Path
) -> None:
    values = {"train_epochs": 3, "head_only": True, "dropout": 0.3}
    assert run(encoder, images, tmp_path / "straight", **values) == 0
    output = tmp_path / "killed"
    with pytest.MonkeyPatch.context() as patch:

        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(train.cb.ValidationLog, "on_epoch_end", killed)
        with pytest.raises(KeyboardInterrupt):
            run(encoder, images, output, **values)
    assert (output / "ckpt-3.index").exists()
    assert not (output / "validation.csv").exists()
    assert run(encoder, images, output, **values) == 0
    for name in ("validation.csv", "predictions.csv"):
        assert (output / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_a_kill_while_results_are_written_leaves_a_run_that_can_be_finished(
    images: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(finish, "write_report", killed)
        with pytest.raises(KeyboardInterrupt):
            run(encoder, images, output, head_only=True)
    report = (output / "report.json").read_bytes()
    assert run(encoder, images, output, head_only=True) == 0
    assert (output / "report.html").exists()
    assert (output / "report.json").read_bytes() == report


def test_early_stopping_looks_at_validation_and_is_remembered(
    images: Path, encoder: Path, tmp_path: Path
) -> None:
    # A rate at which the training loss falls and validation soon does not.
    values = {"head_only": True, "train_epochs": 40, "early_stopping_patience": 2,
              "monitor": "loss", "learning_rate": 0.3, "optimizer": "adam"}  # fmt: skip
    output = tmp_path / "run"
    assert run(encoder, images, output, **values) == 0
    loss = read_metrics(output / "validation.csv")["validation/loss"]
    assert len(loss) < 40
    assert len(loss) == int(loss.argmin()) + 3
    assert {p.stem for p in (output / "best").glob("*.index")} == {
        f"ckpt-{3 * (loss.argmin() + 1)}"
    }
    (output / "report.html").unlink()
    assert run(encoder, images, output, **values) == 0, "goes on to the report, not to train"
    assert len(read_metrics(output / "validation.csv")["step"]) == len(loss)


def test_another_runs_folder_is_refused_and_overwrite_starts_anew(
    images: Path, encoder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    assert run(encoder, images, output, head_only=True) == 0
    before = (output / "report.json").read_bytes()
    with pytest.raises(UserError, match=r"--output=.*--learning_rate was 0.01, is 0.02"):
        run(encoder, images, output, head_only=True, learning_rate=0.02)
    assert (output / "report.json").read_bytes() == before
    assert run(encoder, images, output, head_only=True, train_epochs=2, overwrite=True) == 0
    assert len(read_metrics(output / "validation.csv")["step"]) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no run"):
        run(encoder, images, tmp_path / "mine")


def test_fewer_labels_are_part_of_more_and_the_held_out_splits_stay(
    images: Path, encoder: Path, tmp_path: Path
) -> None:
    trained: dict[int, set[str]] = {}
    for number in (2, 4):
        output = tmp_path / str(number)
        assert run(encoder, images, output, head_only=True, labels_per_class=number) == 0
        manifest = Manifest.load(output / "manifest.csv")
        assert Counter(r.label for r in manifest.split("train").records) == dict.fromkeys(
            ("checks", "dots", "stripes"), number
        )
        assert len(manifest.split("test")) == 12
        trained[number] = {r.path for r in manifest.split("train").records}
    assert trained[2] < trained[4]


def test_chosen_blocks_train_and_the_others_do_not(
    images: Path, encoder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    values = {"train_blocks": "4,head", "ft_proj_selector": 1, "augment": "generator",
              "rotation_range": 20.0, "optimizer": "momentum", "label_smoothing": 0.1,
              "focal_gamma": 2.0, "class_weights": "balanced"}  # fmt: skip
    assert run(encoder, images, output, **values) == 0
    own: Any = load_classifier(output / "model.keras").backbone
    before = load_encoder(encoder)
    for number, stage in before.backbone().stages.items():
        pairs = zip(stage.variables, own.encoder.backbone().stages[number].variables, strict=True)
        same = all(np.array_equal(a, b) for a, b in pairs)
        assert same == (number != 4)
    layers = zip(
        before.projection_head.projection_layers,
        own.encoder.projection_head.projection_layers,
        strict=True,
    )
    moved = [not np.array_equal(a.dense.kernel, b.dense.kernel) for a, b in layers]
    assert moved == [True, False, False], "layers that do not run do not train"


def test_a_single_channel_and_missing_splits_are_told_of(
    encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gray = make_folder(tmp_path / "grey", per_class=4, channels=1)
    manifest = Manifest.load(_all_in_train(gray, tmp_path / "train.csv"))
    assert manifest.splits == ("train",)
    with caplog.at_level(logging.WARNING):
        status = run(
            encoder, Path(), tmp_path / "run", image_dir="", manifest=str(tmp_path / "train.csv"),
            head_only=True,
        )  # fmt: skip
    assert status == 0
    assert "last epoch's weights" in caplog.text
    assert load_classifier(tmp_path / "run" / "model.keras").image_shape == (32, 32, 1)
    with pytest.raises(UserError, match="no labelled validation"):
        run(
            encoder, Path(), tmp_path / "other", image_dir="", head_only=True,
            manifest=str(tmp_path / "train.csv"), early_stopping_patience=3,
        )  # fmt: skip
    assert not (tmp_path / "other").exists()


def _all_in_train(folder: Path, target: Path) -> Path:
    from dataclasses import replace

    from data_prep.manifest.scan import scan_folder

    found = scan_folder(folder)
    Manifest(tuple(replace(r, split="train") for r in found.records), found.root).save(target)
    return target


@pytest.mark.thorough
def test_two_replicas_train_as_one(images: Path, encoder: Path, tmp_path: Path) -> None:
    values = {"train_blocks": "4", "augment": "none", "layer_decay": 0.5, "train_epochs": 2}
    assert run(encoder, images, tmp_path / "one", **values, distribute="one_device") == 0
    assert run(encoder, images, tmp_path / "two", **values, num_cpu_devices=2) == 0
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=2e-3)
    one, two = (scores(predictions(tmp_path / name)) for name in ("one", "two"))
    np.testing.assert_allclose(two, one, atol=0.02)
    loaded = keras.models.load_model(tmp_path / "two" / "model.keras")
    np.testing.assert_allclose(loaded(pictures(tmp_path / "two")), two, atol=1e-5)
