import csv
import dataclasses
import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from finetune.classifier import load_classifier
from finetune.image_data_generator import flow_from_split, predict_once
from finetune.keras_backbones import build_backbone, trunk_of
from finetune.session import ClassifierSession, open_session
from finetune.train import fit
from finetune.transfer import (
    FROZEN_STAGE,
    Transfer,
    TransferDir,
    _first_stage,
    generator_arguments,
    train_transfer,
)
from finetune.transfer_config import PRESETS, TransferConfig
from simclr_tf.training.fit import StopRequest
from tests.images import make_folder, make_split_folder

# Keras' own code imports a name of SciPy that is going away.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Please import `affine_transform`"),
]

SIZE = 32


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"), 8, 4, SIZE)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A small network, at random but for statistics under which its features differ."""
    keras.utils.set_random_seed(3)
    trunk = trunk_of(build_backbone("mobilenet", image_size=SIZE, weights="none"))
    for variable in trunk.variables:
        if "moving_variance" in variable.path:
            variable.assign(np.full(variable.shape, 0.02, np.float32))
    file = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    trunk.save_weights(file)
    return file


def settings(images: Path, made: Path, output: Path, **values: Any) -> TransferConfig:
    common = {
        "image_dir": str(images),
        "backbone": "mobilenet",
        "weights": str(made),
        "cut_layer": "conv_pw_2_relu",
        "image_size": SIZE,
        "train_epochs": 2,
        "train_batch_size": 8,
        "bootstrap": 100,
        "precision": "float32",
        "grad_cam": "0",
        "output": str(output),
    }
    return TransferConfig.from_values({**common, **values})


def trained(config: TransferConfig) -> ClassifierSession:
    """Trains without scoring test images and without a report."""
    session = open_session(config, Transfer(config).recipe())
    fit(session, StopRequest())
    return session


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def finished(images: Path, weights: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = settings(
        images, weights, folder, feature_maps="conv1_relu,conv_dw_2_relu", grad_cam="3",
        feature_map_images="2", train_epochs=20, learning_rate=0.05,
    )  # fmt: skip
    assert train_transfer(config) == 0
    return folder


def test_predictions_are_those_of_the_exported_model_on_files_in_order(finished: Path) -> None:
    manifest = Manifest.load(finished / "manifest.csv")
    flow = flow_from_split(manifest, "test", image_size=SIZE, rescale=1 / 255)
    model = load_classifier(finished / "model.keras")
    labels, probabilities = predict_once(model, flow)
    told = [row for row in rows(finished / "predictions.csv") if row["split"] == "test"]
    names = model.class_names
    assert [row["true"] for row in told] == [names[label] for label in labels]
    scores = np.array([[float(row[f"score_{name}"]) for name in names] for row in told])
    np.testing.assert_allclose(scores, probabilities, atol=1e-5)
    report = json.loads((finished / "report.json").read_text())
    accuracy = report["splits"]["test"]["metrics"]["accuracy"]["value"]
    assert accuracy == pytest.approx((scores.argmax(1) == labels).mean())
    assert accuracy > 0.5  # chance is a third


def test_test_images_are_scored_once_and_not_in_training(finished: Path) -> None:
    logged = rows(finished / "validation.csv")
    assert logged
    assert not any(name.startswith("test") for name in logged[0])


def test_the_saved_model_takes_images_in_0_to_1(finished: Path) -> None:
    shown = np.random.default_rng(0).random((2, SIZE, SIZE, 3)).astype(np.float32)
    loaded = tf.saved_model.load(str(finished / "saved_model"))
    expected = load_classifier(finished / "model.keras")(shown)
    np.testing.assert_allclose(loaded.serve(shown), expected, atol=1e-6)


def test_the_frozen_backbone_is_bit_for_bit_as_it_was(finished: Path, weights: Path) -> None:
    made = trunk_of(
        build_backbone(
            "mobilenet", image_size=SIZE, weights=str(weights), cut_layer="conv_pw_2_relu"
        )
    )
    trained = trunk_of(load_classifier(finished / "model.keras").backbone)
    for before, after in zip(made.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_feature_maps_and_evidence_are_drawn_and_told_in_the_report(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    for name in ("grad_cam", "feature_maps_conv1_relu", "feature_maps_conv_dw_2_relu"):
        with Image.open(finished / f"{name}.png") as picture:
            assert min(picture.size) > 200
    assert page.count("where-the-evidence-lies") == page.count("feature-maps") == 2  # and a link
    assert "conv_pw_2_relu" in page


def test_a_finished_run_is_left_alone_and_another_is_refused(
    finished: Path, images: Path, weights: Path, caplog
) -> None:
    page = (finished / "report.html").stat().st_mtime_ns
    config = TransferConfig.load(finished / "config.json")
    assert train_transfer(config) == 0
    assert (finished / "report.html").stat().st_mtime_ns == page
    other = dataclasses.replace(config, head=dataclasses.replace(config.head, head="16"))
    with pytest.raises(UserError, match="--head was '', is '16'"):
        train_transfer(other)


def test_two_stages_freeze_then_unfreeze_the_end_at_a_lower_rate(
    images: Path, weights: Path, tmp_path: Path
) -> None:
    config = settings(
        images, weights, tmp_path / "run", unfreeze_after="conv_pw_1_relu", unfreeze_epochs=2,
        unfreeze_learning_rate=1e-3, learning_rate=0.02, schedule="constant",
    )  # fmt: skip
    assert train_transfer(config) == 0
    first, last = tmp_path / "run" / FROZEN_STAGE, tmp_path / "run"
    rates = [{float(r["learning_rate"]) for r in rows(f / "metrics.csv")} for f in (first, last)]
    assert [len(rate) for rate in rates] == [1, 1]
    assert [rate.pop() for rate in rates] == pytest.approx([0.02, 0.001])
    assert not (first / "report.json").exists()  # test images are scored once, at the end
    before = trunk_of(
        build_backbone("mobilenet", image_size=SIZE, weights=str(weights),
                       cut_layer="conv_pw_2_relu")
    )  # fmt: skip
    after = trunk_of(load_classifier(last / "model.keras").backbone)
    moved = {
        old.path.split("/")[-2]
        for old, new in zip(before.variables, after.variables, strict=True)
        if (old.numpy() != new.numpy()).any()
    }
    assert moved == {"conv_dw_2", "conv_pw_2"}  # not their batch normalisation
    settings_again = TransferConfig.load(last / "config.json")
    assert settings_again.optimizer.learning_rate == 0.02
    assert train_transfer(config) == 0  # complete
    assert "First stage, frozen" in (last / "report.html").read_text()


def test_a_second_stage_starts_from_the_best_weights_of_the_first(
    images: Path, weights: Path, tmp_path: Path
) -> None:
    config = settings(
        images, weights, tmp_path / "run", unfreeze_after="conv_pw_1_relu", unfreeze_epochs=1,
        unfreeze_learning_rate=0.0, learning_rate=0.02, train_epochs=4,
    )  # fmt: skip
    assert train_transfer(config) == 0
    first = rows(tmp_path / "run" / FROZEN_STAGE / "validation.csv")
    last = rows(tmp_path / "run" / "validation.csv")
    (file,) = (tmp_path / "run" / FROZEN_STAGE / "best").glob("ckpt-*.index")
    (best,) = (row for row in first if file.stem == f"ckpt-{row['step']}")
    assert float(best["validation/accuracy"]) == max(float(r["validation/accuracy"]) for r in first)
    for quantity in ("validation/accuracy", "validation/loss"):
        assert float(last[0][quantity]) == pytest.approx(float(best[quantity]), rel=1e-4)


def test_a_first_stage_that_was_stopped_goes_on_as_if_it_had_not(
    images: Path, weights: Path, tmp_path: Path
) -> None:
    logs = []
    for stops in ((0,), (signal.SIGTERM, 0)):
        output = tmp_path / f"stopped {len(stops) - 1} times"
        config = settings(
            images, weights, output, unfreeze_after="conv_pw_1_relu", rotation_range=20.0
        )
        for number in stops:
            stop = StopRequest()
            stop.signal = number
            with ExitStack() as claims:
                _first_stage(Transfer(config), stop, claims)
        assert [path.name for path in output.iterdir()] == [FROZEN_STAGE]
        logs.append(rows(output / FROZEN_STAGE / "metrics.csv"))
    assert len(logs[0]) == len(logs[1]) == 6
    for whole, resumed in zip(*logs, strict=True):
        assert float(whole["total_loss"]) == pytest.approx(float(resumed["total_loss"]), rel=1e-5)


@pytest.mark.parametrize("pipeline", ["tf_data", "image_data_generator"])
def test_runs_of_both_pipelines_repeat_exactly_and_augment_anew_every_epoch(
    images: Path, weights: Path, tmp_path: Path, pipeline: str
) -> None:
    logs = []
    for name in ("one", "two"):
        config = settings(
            images, weights, tmp_path / name, pipeline=pipeline, rotation_range=30.0,
            zoom_range="0.2", train_steps=4,
        )  # fmt: skip
        session = open_session(config, Transfer(config).recipe())
        make = session.steps.training_example()
        image = tf.constant(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)), tf.uint8)
        views = [make(image, tf.constant([0, e << 40], tf.int64))["image"] for e in (0, 1)]
        logs.append((views[0].numpy(), views[1].numpy()))
    assert np.abs(logs[0][0] - logs[0][1]).max() > 0.05
    for one, two in zip(*logs, strict=True):
        np.testing.assert_array_equal(one, two)
        assert one.dtype == np.float32
        assert 0 <= one.min() < one.max() <= 1


def test_image_data_generator_trains_through_the_same_loop(
    images: Path, weights: Path, tmp_path: Path
) -> None:
    config = settings(
        images, weights, tmp_path / "run", pipeline="image_data_generator", rotation_range=10.0,
        horizontal_flip=True, train_epochs=4, learning_rate=0.01,
        head_start="random",  # a probe leaves nothing to learn here
    )  # fmt: skip
    trained(config)
    logged = rows(tmp_path / "run" / "validation.csv")
    losses = [float(row["train/loss"]) for row in logged]
    assert losses[-1] < losses[0]


def test_two_replicas_take_the_steps_of_one(images: Path, weights: Path, tmp_path: Path) -> None:
    logs = []
    for replicas in (0, 2):
        config = settings(
            images, weights, tmp_path / str(replicas), num_cpu_devices=replicas, head="8",
            distribute="mirrored" if replicas else "one_device", learning_rate=0.01,
        )  # fmt: skip
        trained(config)
        logs.append(rows(tmp_path / str(replicas) / "validation.csv"))
    for one, two in zip(*logs, strict=True):
        for name in one:
            assert float(one[name]) == pytest.approx(float(two[name]), rel=2e-3, abs=2e-3)


def test_standardization_by_the_training_set_is_a_part_of_the_model(
    images: Path, weights: Path, tmp_path: Path
) -> None:
    config = settings(
        images, weights, tmp_path / "run", preprocess="none", rescale=1 / 255,
        featurewise_center=True, featurewise_std_normalization=True,
    )  # fmt: skip
    layer = open_session(config, Transfer(config).recipe()).model.backbone.layers[1]
    files = Manifest.load(tmp_path / "run" / "manifest.csv").split("train").files()
    pixels = np.stack([np.asarray(Image.open(file)) for file in files]) / 255
    np.testing.assert_allclose(layer.mean, pixels.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.std, pixels.std((0, 1, 2)), rtol=1e-5)
    shown = np.asarray(layer(pixels.astype(np.float32)))
    np.testing.assert_allclose(shown.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(shown.std((0, 1, 2)), 1, atol=1e-3)


def test_gray_images_train_a_color_network(weights: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "grey", 8, SIZE, channels=1)
    session = trained(settings(folder, weights, tmp_path / "run", train_epochs=1))
    assert session.model.image_shape == (SIZE, SIZE, 1)
    assert len(rows(tmp_path / "run" / "validation.csv")) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rescale": 1 / 255}, "rescale and a preprocess_input would scale the images twice"),
        ({"samplewise_center": True}, "would scale the images twice; .* --preprocess=none"),
        ({"pipeline": "image_data_generator", "augment": "views"}, "goes with --augment=generator"),
        ({"interpolation_order": 3}, "is for --pipeline=image_data_generator"),
        ({"preset": "vgg"}, "--preset=vgg: there are vgg16_generator"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    images: Path, weights: Path, tmp_path: Path, values: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        settings(images, weights, tmp_path / "run", **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": "nowhere.h5"}, "--weights=nowhere.h5: no such file"),
        ({"cut_layer": "conv99"}, "--cut_layer=conv99"),
        ({"unfreeze_after": "conv_pw_2_relu"}, "--unfreeze_after=conv_pw_2_relu: nothing behind"),
        ({"feature_maps": "block1"}, "--feature_maps=block1"),
        ({"grad_cam": "none.png"}, "--grad_cam: there is no image none.png"),
        ({"grad_cam_layer": "last"}, "--grad_cam_layer=last"),
    ],
)
def test_what_is_wrong_with_the_backbone_is_said_before_anything_is_written(
    images: Path, weights: Path, tmp_path: Path, values: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train_transfer(settings(images, weights, tmp_path / "run", **values))
    assert not (tmp_path / "run" / "config.json").exists()


def test_files_of_others_are_refused_before_the_first_stage(
    images: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    config = settings(images, weights, tmp_path, unfreeze_after="conv_pw_1_relu")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        train_transfer(config)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_of_before_goes_on_reading_as_it_began(
    images: Path, weights: Path, tmp_path: Path
) -> None:
    config = settings(images, weights, tmp_path, train_epochs=1, floors=False)
    folder = TransferDir(tmp_path)
    folder.write_settings(config.suited(24))
    old = json.loads(folder.config_file.read_text())
    del old["reading"]["exif"], old["reading"]["percentiles"]
    folder.config_file.write_text(json.dumps(old))
    for name in ("flags.json", "checksums.json"):  # runs of before have none
        (tmp_path / name).unlink()
    assert train_transfer(config) == 0
    reading = json.loads(folder.config_file.read_text())["reading"]
    assert (reading["exif"], reading["percentiles"]) == ("ignore", "sampled")


def test_presets_are_the_published_runs() -> None:
    for name, size, batch, turn, backbone, head in (
        ("vgg16_generator", 400, 16, 30, "vgg16", (2048, 1024)),
        ("vgg16_tfdata", 600, 32, 36, "vgg16", (2048, 1024)),
        ("resnet50_tfdata", 600, 16, 36, "resnet50", (1024, 512)),
        ("vgg16_block4", 400, 16, 30, "vgg16", (1024,)),
    ):
        config = TransferConfig.from_values(PRESETS[name])
        assert (config.augment.image_size, config.train.train_batch_size) == (size, batch)
        assert (config.start.backbone, config.head.widths()) == (backbone, head)
        assert config.augment.generator().rotation_range == turn
        assert not config.augment.generator().horizontal_flip
        o, t = config.optimizer, config.train
        assert (o.optimizer, o.learning_rate, o.schedule) == ("adam", 1e-4, "constant")
        assert (t.train_epochs, t.monitor, t.early_stopping_patience) == (15, "accuracy", 3)
        assert (config.head.dropout, config.start.pooling) == (0.2, "flatten")
        assert config.augment.chosen_augment() == "generator"
        assert config.optimizer.weight_decay == 0
    assert PRESETS["vgg16_block4"]["cut_layer"] == "block4_pool"
    assert PRESETS["vgg16_generator"]["pipeline"] == "image_data_generator"


def test_every_generator_flag_reaches_image_data_generator() -> None:
    values = {
        "rotation_range": 20.0, "width_shift_range": 0.1, "height_shift_range": 0.2,
        "brightness_range": "0.5,1.5", "shear_range": 10.0, "zoom_range": "0.8,1.1",
        "channel_shift_range": 20.0, "fill_mode": "constant", "cval": 7.0,
        "horizontal_flip": True, "vertical_flip": True, "interpolation_order": 3,
        "pipeline": "image_data_generator",
    }  # fmt: skip
    arguments = generator_arguments(TransferConfig.from_values(values))
    made = tf.keras.preprocessing.image.ImageDataGenerator(**arguments)
    assert (made.rotation_range, made.width_shift_range, made.height_shift_range) == (20, 0.1, 0.2)
    assert (list(made.brightness_range), made.shear_range) == ([0.5, 1.5], 10)
    assert (list(made.zoom_range), made.channel_shift_range) == ([0.8, 1.1], 20)
    assert (made.fill_mode, made.cval, made.interpolation_order) == ("constant", 7, 3)
    assert made.horizontal_flip
    assert made.vertical_flip
