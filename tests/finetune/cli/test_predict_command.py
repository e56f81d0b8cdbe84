"""`simclr-predict`: classes of a folder's images, from networks of every origin."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data_prep.augment.views import ViewConfig, evaluation_image
from data_prep.reading.images import read_image
from finetune.cli.predict import main
from simclr_tf.checkpoints import zoo
from simclr_tf.checkpoints.load import load_model
from simclr_tf.checkpoints.preprocessing import Preprocessing
from simclr_tf.checkpoints.write import write_model
from simclr_tf.models import SimCLREncoder, SimCLRModel
from tests.images import make_folder
from tests.simclr_tf.checkpoints.common import path_of


def predict(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def network(classes: int, record: dict[str, object] | None = None) -> SimCLRModel:
    tf.keras.utils.set_random_seed(0)
    encoder = SimCLREncoder(18, width_multiplier=0.0625, preprocessing=record)
    model = SimCLRModel(encoder, classes)
    model.build()
    kernel = model.supervised_head.dense.kernel  # type: ignore[union-attr]
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    return model


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images"), per_class=3, size=50)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_an_imagenet_checkpoint_says_wordnet_ids_and_names(images: Path, tmp_path: Path) -> None:
    """As released: a TF1 file that knows nothing of sizes and names."""
    write_model(network(1000), tmp_path / "tf1", "tf1")
    (tmp_path / "tf1" / "preprocessing.json").unlink()
    output = tmp_path / "out" / "p.csv"
    flags = f"--checkpoint={tmp_path / 'tf1'}", f"--image_dir={images}", f"--output={output}"
    assert predict(*flags, "--top_k=3", "--batch_size=4") == 0
    found = rows(output)
    assert len(found) == 9
    model = load_model(tmp_path / "tf1")
    assert model.encoder.preprocessing["image_size"] == 224
    for row in found:
        image = evaluation_image(tf.constant(read_image(row["path"], 3)), ViewConfig(224, 3))
        batch = tf.image.convert_image_dtype(image, tf.float32)[tf.newaxis]
        scores = tf.nn.softmax(model(batch)["logits_sup"]).numpy()[0]
        best = np.argsort(-scores)[:3]
        assert [row[f"class_{k}"] for k in (1, 2, 3)] == [zoo.class_names()[c] for c in best]
        assert [row[f"id_{k}"] for k in (1, 2, 3)] == [zoo.wordnet_ids()[c] for c in best]
        ours = [float(row[f"score_{k}"]) for k in (1, 2, 3)]
        np.testing.assert_allclose(ours, scores[best], rtol=1e-3)


@pytest.mark.slow
def test_the_record_of_the_network_is_obeyed(images: Path, tmp_path: Path) -> None:
    record = Preprocessing(32, 3, ("a", "b"), central_crop=0.5).record()
    write_model(network(2, record), tmp_path / "m.keras", "keras", part="model")
    output = tmp_path / "p.csv"
    flags = f"--checkpoint={tmp_path / 'm.keras'}", f"--image_dir={images}", f"--output={output}"
    assert predict(*flags) == 0
    model, row = load_model(tmp_path / "m.keras"), rows(output)[0]
    views = ViewConfig(32, 3, central_crop=0.5)
    image = evaluation_image(tf.constant(read_image(row["path"], 3)), views)
    batch = tf.image.convert_image_dtype(image, tf.float32)[tf.newaxis]
    scores = tf.nn.softmax(model(batch)["logits_sup"]).numpy()[0]
    assert row["class_1"] == "ab"[int(scores.argmax())]
    assert float(row["score_1"]) == pytest.approx(scores.max(), rel=1e-4)
    assert list(row) == ["path", "predicted", "class_1", "score_1", "class_2", "score_2"]


def test_what_cannot_be_predicted_is_said_in_one_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrained = path_of("tf1_tiny_r18_w8_cifar_pretrain")
    kept = tmp_path / "kept.csv"
    kept.write_text("mine")
    for flags, said in (
        ([pretrained, images, tmp_path / "p.csv"], "has no supervised head; fine-tune it first"),
        (["nowhere", images, tmp_path / "p.csv"], "--model=nowhere: no such checkpoint"),
        ([pretrained, "nowhere", tmp_path / "p.csv"], "--image_dir=nowhere: no such folder"),
        ([pretrained, images, kept], "is there already"),
    ):
        names = ("--checkpoint", "--image_dir", "--output")
        assert predict(*(f"{n}={v}" for n, v in zip(names, flags, strict=True))) == 1
        error = capsys.readouterr().err.strip()
        assert said in error
        assert len(error.splitlines()) == 1
    assert kept.read_text() == "mine"
    assert not (tmp_path / "p.csv").exists()
