"""Heads that begin with what the features of the training images say."""

import json
import logging
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from data_prep.manifest.manifest import Manifest
from finetune.classifier import Classifier, ClassifierHead, FeatureScaling, load_classifier
from finetune.config import FinetuneConfig
from finetune.former_settings import of_the_run
from finetune.image_data_generator import flow_from_split
from finetune.keras_backbones import build_backbone, trunk_of
from finetune.session import bounded
from finetune.transfer import train_transfer
from finetune.transfer_config import PRESETS, TransferConfig
from simclr_tf.evaluation.linear_probe import fit_linear_probe


def features(n: int = 60, d: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.gamma(1.0, 1.0, (n, d)) * np.logspace(-2, 2, d)
    x[:, 0] = 3.0  # does not vary
    return x.astype(np.float32)


def test_scaling_is_that_of_scikit_learn_and_leaves_dead_features_alone() -> None:
    x = features()
    layer = FeatureScaling()
    layer.build(x.shape)
    np.testing.assert_array_equal(layer(x), x)
    layer.set_statistics(x)
    np.testing.assert_allclose(layer(x), StandardScaler().fit_transform(x), atol=1e-4)
    beyond = x[:1] + 1
    assert np.abs(np.asarray(layer(beyond))[:, 0]).max() == pytest.approx(1)
    assert isinstance(layer, keras.layers.Normalization)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_head_that_starts_from_a_probe_says_what_it_says(scaled: bool) -> None:
    x = features()
    y = (x[:, 1] > np.median(x[:, 1])).astype(np.int64) + 2 * (x[:, 2] > 0.5)
    probe = fit_linear_probe(x, y, num_classes=5)
    head = ClassifierHead(5, feature_scaling=scaled)
    head.build((None, x.shape[1]))
    if head.scaling is not None:
        head.scaling.set_statistics(x)
    head.start_from(probe)
    found = keras.ops.softmax(head(x), axis=1)
    np.testing.assert_allclose(found, probe.predict_proba(x), atol=0.01)
    assert np.isfinite(np.asarray(head(x))).all()  # also of class 4, which no image has


def test_features_that_hardly_vary_do_not_blow_up_the_start() -> None:
    """A collapsed network: classes differ by a thousandth, training moves features by more."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = 5 + 5e-3 * (np.eye(3)[y] @ rng.normal(size=(3, 64)) + 0.1 * rng.normal(size=(90, 64)))
    moved = x + 0.05 * rng.normal(size=x.shape)
    probe = fit_linear_probe(x, y, num_classes=3)
    losses = []
    for start in (probe, bounded(probe, x)):
        head = ClassifierHead(3)
        head.build((None, 64))
        head.start_from(start)
        logits = np.asarray(head(moved.astype(np.float32)))
        losses.append(float(keras.ops.mean(keras.losses.sparse_categorical_crossentropy(
            y, logits, from_logits=True))))  # fmt: skip
    assert losses[0] > 3 * np.log(3)
    assert losses[1] < 1.05 * np.log(3)
    clear = np.abs(rng.normal(3, 2, (90, 64)))
    kept = fit_linear_probe(clear, y, num_classes=3)
    np.testing.assert_array_equal(bounded(kept, clear).scale, kept.scale)


def test_the_scaling_travels_with_the_network_and_old_networks_have_none(tmp_path: Path) -> None:
    backbone = build_backbone("mobilenet", image_size=32, weights="none")
    model = Classifier(backbone, 3, (32, 32, 3), feature_scaling=True)
    model.build()
    shown = np.random.default_rng(0).random((4, 32, 32, 3)).astype(np.float32)
    scaling = model.head.scaling
    assert scaling is not None
    scaling.set_statistics(np.random.default_rng(1).normal(2, 3, (9, 1024)))
    model.save(tmp_path / "model.keras")
    again = load_classifier(tmp_path / "model.keras")
    np.testing.assert_allclose(again(shown), model(shown), atol=1e-6)
    old = {k: v for k, v in model.get_config().items() if k != "feature_scaling"}
    assert Classifier.from_config(old).head.scaling is None


@pytest.mark.parametrize("name", PRESETS)
def test_published_heads_stay_as_they_were(name: str) -> None:
    config = TransferConfig.from_values(PRESETS[name])
    assert not config.head.feature_scaling
    assert config.head.head_start == "random"
    assert config.optimizer.warmup_epochs == 0


def test_defaults_suit_the_number_of_images() -> None:
    suited = TransferConfig().suited(700)
    assert (suited.train.train_batch_size, suited.train.train_epochs) == (32, 46)
    assert suited.optimizer.warmup_epochs == pytest.approx(4.6)
    given = {"train_batch_size": 64, "train_epochs": 25, "warmup_epochs": 0.0}
    config = TransferConfig.from_values(given)
    assert config.suited(700) == config
    assert TransferConfig.from_values({"train_steps": 500}).suited(700).train.train_steps == 500


def old_run(folder: Path, **changes: object) -> dict[str, dict[str, object]]:
    """A `config.json` as version 0.1 wrote it."""
    sections = json.loads(FinetuneConfig().to_json())
    del sections["head"]["head_start"]
    del sections["measure"]["floors"]
    sections["train"] |= {"train_batch_size": 64, "train_epochs": 25}
    sections["optimizer"] |= {"warmup_epochs": 0.0, "layer_decay": 1.0}
    for section in sections.values():
        section |= {name: value for name, value in changes.items() if name in section}
    (folder / "config.json").write_text(json.dumps(sections))
    return sections


def test_a_run_of_before_goes_on_as_it_was_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old_run(tmp_path, train_epochs=40)
    stored = FinetuneConfig.load(tmp_path / "config.json")
    assert stored.head.head_start == "random"
    with caplog.at_level(logging.INFO):
        config = of_the_run(FinetuneConfig.from_values({"train_epochs": 40}), tmp_path)
    assert config == stored
    assert "--warmup_epochs=0.0" in caplog.text
    # What was given stays given: the folder refuses it as before.
    other = of_the_run(FinetuneConfig.from_values({"train_epochs": 30}), tmp_path)
    assert other.train.train_epochs == 30
    anew = FinetuneConfig.from_values({"overwrite": True})
    assert of_the_run(anew, tmp_path) == anew


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 images of ten classes."""
    root = tmp_path_factory.mktemp("digits")
    known = load_digits()
    for i, (image, label) in enumerate(zip(known.images[:1000], known.target, strict=False)):
        folder = root / f"digit_{label}"
        folder.mkdir(exist_ok=True)
        pixels = Image.fromarray((image * 15.9).astype(np.uint8)).resize((32, 32))
        pixels.save(folder / f"{i:04d}.png")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network drawn at random whose features are of very unequal scale."""
    keras.utils.set_random_seed(3)
    trunk = trunk_of(build_backbone("mobilenet", image_size=32, weights="none"))
    rng = np.random.default_rng(0)
    for variable in trunk.variables:
        if "moving_variance" in variable.path:
            variable.assign(rng.lognormal(-3, 2, variable.shape).astype(np.float32))
    file = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    trunk.save_weights(file)
    return file


@pytest.mark.slow
def test_the_defaults_of_transfer_reach_a_standardized_logistic_regression(
    digits: Path, weights: Path, tmp_path: Path
) -> None:
    gaps = []
    for seed in (0, 1):
        output = tmp_path / f"run_{seed}"
        config = TransferConfig.from_values(
            {"image_dir": str(digits), "weights": str(weights), "backbone": "mobilenet",
             "cut_layer": "conv_pw_2_relu", "image_size": 32, "central_crop": 1.0,
             "bootstrap": 100, "grad_cam": "0",
             "precision": "float32", "split_seed": seed, "output": str(output), "floors": False}
        )  # fmt: skip
        assert train_transfer(config) == 0
        model = load_classifier(output / "model.keras")
        manifest = Manifest.load(output / "manifest.csv")
        known = {}
        for split in ("train", "test"):
            flow = flow_from_split(manifest, split, image_size=32, rescale=1 / 255)
            parts = [flow[i] for i in range(len(flow))]
            found = np.concatenate([model.features(x) for x, _ in parts])
            known[split] = (found, np.concatenate([y for _, y in parts]).argmax(axis=1))
        scaler = StandardScaler().fit(known["train"][0])
        probe = LogisticRegression(max_iter=2000)
        probe.fit(scaler.transform(known["train"][0]), known["train"][1])
        theirs = probe.score(scaler.transform(known["test"][0]), known["test"][1])
        report = json.loads((output / "report.json").read_text())
        ours = report["splits"]["test"]["metrics"]["accuracy"]["value"]
        assert theirs > 0.7
        gaps.append(ours - theirs)
    assert np.mean(gaps) > -0.02
