"""Exported classifiers, run by programs that know nothing of this package."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import ndimage

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.read_options import Declaration
from data_prep.reading.images import read_image
from data_prep.reading.intensity import parse_intensity
from data_prep.reading.spec import Reading
from data_prep.reading.training_files import TrainingReading, look_at
from finetune.classifier import Classifier
from finetune.export.export import ExportRequest, export
from finetune.export.plain_keras import standard_model
from finetune.export.reading import GivenImage
from finetune.keras_backbones import build_backbone
from finetune.predict import PredictSettings, list_images, predict_images
from finetune.report.side_files import facts_file
from finetune.sections import Format, Input
from finetune.trained import Trained, open_trained
from simclr_tf.checkpoints.preprocessing import Preprocessing, write_record
from simclr_tf.checkpoints.write import export_keras
from simclr_tf.models.keras_applications import PreprocessInput
from simclr_tf.training.evaluator import simclr_outputs
from simclr_tf.training.scoring import softmax
from tests.finetune.networks import network, write_run
from tests.images import make_folder

_OUTSIDE = """
import json, sys
for name in ("simclr_tf", "finetune", "data_prep"):
    sys.modules[name] = None  # an import fails
import numpy as np
kind, path, images = sys.argv[1:]
arrays = [np.asarray(array) for array in np.load(images).values()]
if kind == "onnx":
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = [session.run(["probabilities"], {"images": array})[0] for array in arrays]
elif kind == "saved_model":
    import tensorflow as tf
    serve = tf.saved_model.load(path).signatures["serving_default"]
    found = [serve(images=tf.constant(array))["probabilities"].numpy() for array in arrays]
else:
    import keras
    model = keras.models.load_model(path)
    found = [model.predict(array, verbose=0)["probabilities"] for array in arrays]
print(json.dumps([f[0].tolist() for f in found]))
"""


def run_outside(kind: str, path: Path, arrays: list[np.ndarray], folder: Path) -> np.ndarray:
    np.savez(folder / "images.npz", *arrays)
    done = subprocess.run(
        [sys.executable, "-c", _OUTSIDE, kind, str(path), str(folder / "images.npz")],
        capture_output=True, text=True, check=True, cwd=folder,
    )  # fmt: skip
    return np.array(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    run = write_run(tmp_path_factory.mktemp("run") / "run", ("a", "b", "c"), size=40)
    return open_trained(str(run))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "saved_model"])
def test_files_of_any_size_have_the_scores_of_predict_outside_the_package(
    trained: Trained, tmp_path: Path, form: Format
) -> None:
    """Decoded pixels go in: crop, resizing and scaling are in the exported graph."""
    images = make_folder(tmp_path / "images", per_class=1, size=70)
    make_folder(tmp_path / "images" / "small", per_class=1, size=31)
    listed = list_images(str(images), "", Declaration())
    predict_images(trained, listed, tmp_path / "p.csv", PredictSettings(batch_size=4))
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [{r[f"class_{k}"]: float(r[f"score_{k}"]) for k in (1, 2, 3)} for r in rows]
    export(trained, tmp_path / "model", ExportRequest(form))
    pixels = [read_image(row["path"], 3) for row in rows]
    assert {p.shape for p in pixels} == {(70, 70, 3), (31, 31, 3)}
    found = run_outside(form, tmp_path / "model", pixels, tmp_path)
    facts_at = facts_file(tmp_path / "model", folder=form == "saved_model")
    facts = json.loads(facts_at.read_text())
    expected = [[s[name] for name in facts["class_names"]] for s in scores]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected, axis=0).min() > 1e-3  # images differ in their scores
    assert facts["input"]["type"] == "uint8"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "keras"])
def test_prepared_images_have_the_scores_of_the_network_outside_the_package(
    trained: Trained, tmp_path: Path, form: Format
) -> None:
    """Keras here can load nothing but its own layers."""
    path = tmp_path / "m.keras"
    assert export(trained, path, ExportRequest(form, "prepared")).on_noise < 1e-5
    rng = np.random.default_rng(0)
    batches = [rng.random((1, 40, 40, 3)).astype(np.float32) for _ in range(3)]
    found = run_outside(form, path, batches, tmp_path)
    logits = np.concatenate([trained.forward(batch)["logits"] for batch in batches])
    np.testing.assert_allclose(found, softmax(logits), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [
        {"size": 40, "sk_ratio": 0.0625, "depth": 50},
        {"size": 41, "se_ratio": 0.25},
        {"size": 40, "channels": 2, "num_proj_layers": 2},
        {"size": 16},
    ],
    ids=["selective kernels", "squeeze and excitation, odd size", "two bands", "small stem"],
)
def test_standard_layers_compute_what_the_network_computes(architecture: dict) -> None:  # type: ignore[type-arg]
    model = network(("a", "b"), **architecture)
    size, channels = architecture["size"], model.image_channels
    images = np.random.default_rng(1).random((2, size, size, channels)).astype(np.float32)
    rebuilt = standard_model(model, size)
    assert {type(layer).__module__.split(".")[0] for layer in rebuilt.layers} == {"keras"}
    found, expected = rebuilt(images, training=False), simclr_outputs(model)(images)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    assert float(np.ptp(expected["logits"])) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("takes", ["image", "float_image"])
def test_an_export_that_says_something_else_is_not_kept(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes: Input
) -> None:
    def wrong(model: object, size: int) -> object:
        rebuilt = standard_model(trained.network, size)
        bias = rebuilt.layers[-2].bias
        bias.assign(bias + np.array([0.1, 0, 0], np.float32))
        return rebuilt

    monkeypatch.setattr("finetune.export.export.standard_model", wrong)
    with pytest.raises(UserError, match=r"differs from the network by \d"):
        export(trained, tmp_path / "m", ExportRequest("saved_model", takes))
    assert not list(tmp_path.iterdir())


def test_a_keras_file_takes_prepared_images(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --input=prepared"):
        export(trained, tmp_path / "m.keras", ExportRequest("keras", "image"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("backbone", ["vgg16", "mobilenet", "densenet121", "efficientnetb0"])
def test_the_preprocessing_of_networks_of_keras_becomes_a_convolution(
    backbone: str, channels: int
) -> None:
    """BGR less the mean, -1 to 1, ImageNet's mean and deviation, and 0 to 255."""
    images = keras.Input((8, 8, channels))
    seen = PreprocessInput(backbone, name="inputs")(images)
    features = keras.Model(images, keras.layers.GlobalAveragePooling2D()(seen))
    model = Classifier(features, 3, (8, 8, channels))
    model.build()
    batch = np.random.default_rng(0).random((2, 8, 8, channels)).astype(np.float32)
    rebuilt = standard_model(model, 8)
    assert {type(layer).__module__.split(".")[0] for layer in rebuilt.layers} == {"keras"}
    found, expected = rebuilt(batch)["features"], model.features(batch)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    assert float(np.ptp(expected)) > 0


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_standardized_features_are_part_of_the_rebuilt_network(hidden: tuple[int, ...]) -> None:
    images = keras.Input((8, 8, 3))
    features = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    model = Classifier(features, 3, (8, 8, 3), hidden, feature_scaling=True)
    model.build()
    scaling = model.head.scaling
    assert scaling is not None
    deviations = np.array([10.0, 1e-9, 1e-3])  # the second is only centered
    scaling.set_statistics(np.random.default_rng(1).normal(4, deviations, (50, 3)))
    batch = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    found = standard_model(model, 8)(batch)
    wanted = model.head(model.features(batch))
    np.testing.assert_allclose(found["logits"], wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["features"], model.features(batch), rtol=1e-6)


@pytest.mark.slow
def test_a_network_of_keras_is_exported_with_its_head(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    trunk = build_backbone(
        "mobilenet", image_size=32, weights="none", pooling="avg",
        inputs=PreprocessInput("mobilenet", name="inputs", dtype="float32"),
    )  # fmt: skip
    model = Classifier(trunk, 3, (32, 32, 3), (5,), feature_scaling=True)
    model.build()
    assert model.head.scaling is not None
    model.head.scaling.set_statistics(np.random.default_rng(1).normal(2, 3, (9, 1024)))
    model.facts = Preprocessing(32, 3, ("a", "b", "c")).record()
    export_keras(model, tmp_path / "model.keras")
    path = tmp_path / "out" / "m.onnx"
    export(open_trained(str(tmp_path)), path, ExportRequest("onnx", "prepared"))
    batch = np.random.default_rng(0).random((1, 32, 32, 3)).astype(np.float32)
    found = run_outside("onnx", path, [batch], tmp_path)
    np.testing.assert_allclose(found, model(batch), rtol=0, atol=1e-5)


RULES = (
    "minmax", "percentile:1,99", "percentile:0,97.5", "sqrt:0.5,99.9", "arcsinh:0.1,1,99.7",
    "zscore:3", "sqrt@100,20000", "arcsinh:0.2@0,65535",
)  # fmt: skip


def given(
    rule: str,
    dtype: tf.DType,
    channels: int = 1,
    nan: str = "",
    wanted: int = 1,
    percentiles: str = "",
) -> GivenImage:
    reading = Reading(nan=nan, intensity=parse_intensity(rule), percentiles=percentiles)
    return GivenImage("image", dtype, channels, reading, wanted, False, Declaration())


@pytest.mark.parametrize("percentiles", ["", "sampled"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("kind", "channels", "wanted"), [("uint16", 1, 3), ("float32", 3, 1)])
def test_rules_in_the_graph_are_those_of_the_reader(
    rule: str, kind: str, channels: int, wanted: int, percentiles: str
) -> None:
    rng = np.random.default_rng(len(rule))
    nan = "min" if kind == "float32" else ""
    one = given(rule, tf.as_dtype(kind), channels, nan, wanted, percentiles)
    for height, width in ((7, 13), (64, 51), (300, 301)):
        image = (rng.gamma(2, 4000, (height, width, channels))).clip(0, 65535).astype(kind)
        if kind == "float32":
            image[2, 3] = np.nan
            image[3, 3] = np.inf
        found, poison = tf.function(one.as_read)(tf.constant(image))
        np.testing.assert_allclose(found, one.outside(image), rtol=0, atol=1e-6)
        assert float(poison) == 0
    flat = np.full((5, 5, channels), 300, kind)
    np.testing.assert_array_equal(one.as_read(tf.constant(flat))[0], one.outside(flat))


@pytest.mark.parametrize("nan", ["min", "zero", "median"])
def test_what_is_not_finite_becomes_what_the_reader_makes_of_it(nan: str) -> None:
    image = np.random.default_rng(0).normal(0, 1, (6, 7, 1)).astype(np.float32)
    image[0, :3, 0] = np.nan, np.inf, -np.inf
    one = given("minmax", tf.float32, nan=nan)
    found, poison = one.as_read(tf.constant(image))
    np.testing.assert_allclose(found, one.outside(image), atol=1e-6)
    assert float(poison) == 0
    assert np.isnan(float(given("minmax", tf.float32).as_read(tf.constant(image))[1]))


def stored_run(folder: Path, kind: str, rule: str, size: int = 40) -> tuple[Path, list[Path]]:
    """A run of a random network, with the training files that its record and manifest name."""
    rng = np.random.default_rng(0)
    files = folder / "files"
    files.mkdir()
    records = []
    for number in range(9):
        image = rng.gamma(2, 300 * (1 + number), (50 + number, 61)).clip(0, 65535)
        image = ndimage.gaussian_filter(image, 2)
        name = f"{number}.png"
        pixels = (
            image.astype(np.uint16) if kind == "16" else (image / 40).clip(0, 255).astype(np.uint8)
        )
        Image.fromarray(pixels).save(files / name)
        records.append(Record(name, label="abc"[number % 3], split="train"))
    reading = Declaration(intensity=rule)
    manifest = Manifest(
        tuple(replace(r, reading=str(reading.reading())) for r in records), str(files)
    )
    run = write_run(folder / "run", ("a", "b", "c"), size=size, channels=1)
    manifest.save(run / "manifest.csv")
    record = Preprocessing(
        size, 1, ("a", "b", "c"), reading=TrainingReading(reading.record(), look_at(manifest))
    ).record()
    write_record(run, record)
    return run, [files / r.path for r in records]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "saved_model"])
@pytest.mark.parametrize(
    ("kind", "rule"), [("16", "percentile:1,99"), ("8", "arcsinh:0.1"), ("16", "none")]
)
def test_stored_values_have_the_scores_of_predict_outside_the_package(
    tmp_path: Path, form: Format, kind: str, rule: str
) -> None:
    run, files = stored_run(tmp_path, kind, rule)
    trained = open_trained(str(run))
    listed = list_images("", str(run / "manifest.csv"), trained.preprocessing.reading.declaration)
    predict_images(trained, listed, tmp_path / "p.csv", PredictSettings(batch_size=4))
    with (tmp_path / "p.csv").open() as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    checked = export(trained, tmp_path / "model", ExportRequest(form))
    assert (checked.files, checked.other_classes) == (9, 0)
    assert checked.on_noise < 1e-5
    facts_at = facts_file(tmp_path / "model", folder=form == "saved_model")
    facts = json.loads(facts_at.read_text())
    assert facts["input"]["type"].startswith(f"uint{kind}")
    stored = [np.asarray(Image.open(file))[..., None].astype(f"uint{kind}") for file in files]
    found = run_outside(form, tmp_path / "model", stored, tmp_path)
    expected = [
        [{r[f"class_{k}"]: float(r[f"score_{k}"]) for k in (1, 2, 3)}[c] for c in "abc"]
        for r in (rows[str(file)] for file in files)
    ]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 2e-3


def test_without_training_images_the_export_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, files = stored_run(tmp_path, "16", "percentile:1,99")
    for file in files:
        file.unlink()
    with caplog.at_level("WARNING"):
        checked = export(open_trained(str(run)), tmp_path / "m", ExportRequest("saved_model"))
    assert (checked.files, checked.on_files) == (0, None)
    assert "checked on noise alone" in caplog.text


def test_rules_that_one_image_does_not_tell_are_refused(tmp_path: Path) -> None:
    run, _ = stored_run(tmp_path, "16", "percentile:1,99")
    trained = open_trained(str(run))
    preprocessing = trained.preprocessing

    def read_so(reading: TrainingReading) -> Trained:
        return replace(trained, preprocessing=replace(preprocessing, reading=reading))

    reading = preprocessing.reading
    tiled = read_so(replace(reading, recorded={**reading.recorded, "tile": 20}))
    with pytest.raises(UserError, match="give --input=float_image"):
        export(tiled, tmp_path / "m", ExportRequest("saved_model"))
    (run / "manifest.csv").unlink()
    unknown = read_so(replace(reading, files=None))
    with pytest.raises(UserError, match=r"nothing says of what depth .* --input=float_image"):
        export(unknown, tmp_path / "m", ExportRequest("saved_model"))
    assert not (tmp_path / "m").exists()
