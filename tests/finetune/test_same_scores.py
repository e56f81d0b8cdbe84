"""Prediction, the page, embedding and exports say the same of the same file."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.read_options import Declaration
from data_prep.reading.training_files import TrainingFiles, TrainingReading, look_at
from finetune.classifier import Classifier, SimCLRBackbone
from finetune.export.export import ExportRequest, export
from finetune.predict import PredictSettings, list_images, predict_images
from finetune.sections import Input
from finetune.serve.answer import Classify, Neighbors
from finetune.trained import BatchScorer, open_trained
from simclr_tf.checkpoints.preprocessing import Preprocessing, write_record
from simclr_tf.checkpoints.write import export_keras
from simclr_tf.embedding.compute import FeatureMaker, open_network
from simclr_tf.embedding.settings import FeatureSettings
from tests.finetune.networks import network, write_run

SIZE, CLASSES = 40, ("a", "b", "c")
NO_NEIGHBORS = Neighbors(Manifest(()), np.zeros((0, 1), np.float32))


def pictures(kind: str, folder: Path) -> tuple[list[str], Declaration, int]:
    """Files of a kind, how they are read, and their channels."""
    rng = np.random.default_rng(0)
    names = []
    for number in range(6):
        noise = rng.random((12, 14)).repeat(5, 0).repeat(5, 1)[:50, :61]
        scene = (noise * (number + 1) / 6)[..., np.newaxis]
        if kind == "png":
            names.append(f"{number}.png")
            Image.fromarray((scene[..., 0] * 255).astype(np.uint8)).save(folder / names[-1])
        elif kind == "tiff":
            names.append(f"{number}.tif")
            tifffile.imwrite(folder / names[-1], (scene[..., 0] * 4095).astype(np.uint16))
        elif kind == "npy":
            names.append(f"{number}.npy")
            values = (scene[..., 0] * 7 - 3).astype(np.float32)
            values[3:5, number] = np.nan
            np.save(folder / names[-1], values)
        else:
            names.append(f"{number}.jpg")
            color = np.concatenate([scene, scene[:, ::-1], 1 - scene], axis=-1)
            exif = Image.Exif()
            exif[0x0112] = 6
            image = Image.fromarray((color * 255).astype(np.uint8))
            image.save(folder / names[-1], exif=exif, quality=95)
    declarations = {
        "png": Declaration(),
        "tiff": Declaration(intensity="percentile:1,99"),
        "npy": Declaration(intensity="minmax", nan="median"),
        "jpeg": Declaration(exif="ignore"),
    }
    return names, declarations[kind], 3 if kind == "jpeg" else 1


def write_classifier(folder: Path, channels: int, record: dict) -> None:
    """A run of simclr-finetune, as far as it is used: `model.keras`."""
    encoder = network(CLASSES, size=SIZE, channels=channels).encoder
    model = Classifier(SimCLRBackbone(encoder), 3, (SIZE, SIZE, channels))
    model.build()
    kernel = model.head.layers[-1].kernel
    kernel.assign(np.random.default_rng(1).normal(0, 0.5, kernel.shape))
    model.facts = record
    export_keras(model, folder / "model.keras")


@pytest.mark.slow
@pytest.mark.parametrize("made_by", ["run", "finetune"])
@pytest.mark.parametrize("kind", ["png", "tiff", "npy", "jpeg"])
def test_every_way_to_a_score_gives_the_same(kind: str, made_by: str, tmp_path: Path) -> None:
    names, declaration, channels = pictures(kind, tmp_path)
    bare = Manifest(
        tuple(Record(n, label=CLASSES[i % 3], split="train") for i, n in enumerate(names)),
        str(tmp_path),
    )
    images = bare.subset(replace(r, reading=str(declaration.reading())) for r in bare.records)
    record = Preprocessing(
        SIZE, channels, CLASSES, reading=TrainingReading(declaration.record(), look_at(images))
    ).record()
    run = tmp_path / "run"
    if made_by == "run":
        write_run(run, CLASSES, size=SIZE, channels=channels)
        write_record(run, record)
    else:
        run.mkdir()
        write_classifier(run, channels, record)
    images.save(run / "manifest.csv")
    trained = open_trained(str(run))

    bare.save(tmp_path / "bare.csv")
    listed = list_images("", str(tmp_path / "bare.csv"), trained.preprocessing.reading.declaration)
    predict_images(trained, listed, tmp_path / "p.csv", PredictSettings(batch_size=4))
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    predicted = [{row[f"class_{k}"]: float(row[f"score_{k}"]) for k in (1, 2, 3)} for row in rows]
    assert np.ptp([row["a"] for row in predicted]) > 1e-3

    classify = Classify(trained, NO_NEIGHBORS)
    for name, scores in zip(names, predicted, strict=True):
        answer = classify(name, (tmp_path / name).read_bytes())
        assert answer.remarks == ()
        assert dict(answer.scores) == pytest.approx(scores, abs=1e-5)

    takes: tuple[Input, ...] = ("image", "float_image", "prepared")
    for way in takes:
        checked = export(trained, tmp_path / way, ExportRequest("saved_model", way))
        assert checked.files == len(names)
        assert checked.on_files is not None
        assert checked.on_files < 1e-5

    if made_by == "run":
        opened = open_network(FeatureSettings(encoder=str(run), eval_batch_size=4))
        features, _ = FeatureMaker(opened, FeatureSettings(eval_batch_size=4)).features(images)
        expected = BatchScorer(trained, 4).outputs(images)[1]
        np.testing.assert_allclose(features, expected, atol=1e-5)


def test_an_8_bit_upload_to_a_network_of_16_bit_files_is_refused(tmp_path: Path) -> None:
    names, _, channels = pictures("tiff", tmp_path)
    images = Manifest(tuple(Record(n, label="a", split="train") for n in names), str(tmp_path))
    files, reading = look_at(images), Declaration().record()
    record = Preprocessing(
        SIZE, channels, CLASSES, reading=TrainingReading(reading, files)
    ).record()
    run = write_run(tmp_path / "run", CLASSES, size=SIZE, channels=channels)
    write_record(run, record)
    classify = Classify(open_trained(str(run)), NO_NEIGHBORS)
    assert classify("same", (tmp_path / names[3]).read_bytes()).remarks == ()
    buffer = io.BytesIO()
    stored = tifffile.imread(tmp_path / names[3])
    Image.fromarray((stored >> 4).astype(np.uint8)).save(buffer, "PNG")
    with pytest.raises(ValueError, match=r"of 16 bits, these are of 8 bits, and bright"):
        classify("other", buffer.getvalue())


def test_an_upload_is_read_at_the_page_of_the_network(tmp_path: Path) -> None:
    pages = np.random.default_rng(0).integers(0, 99, (3, 24, 24), np.uint8)
    pages[2] += 100
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, pages, photometric="minisblack", metadata=None)
    record = Preprocessing(
        SIZE, 1, CLASSES, reading=TrainingReading(Declaration(page="2").record(), TrainingFiles())
    ).record()
    run = write_run(tmp_path / "run", CLASSES, size=SIZE, channels=1)
    write_record(run, record)
    trained = open_trained(str(run))
    answer = Classify(trained, NO_NEIGHBORS)("a", file.read_bytes())
    images = Manifest((Record("a.tif", reading="page=2"),), str(tmp_path))
    scores = dict(zip(CLASSES, BatchScorer(trained, 4).scores(images)[0], strict=True))
    assert dict(answer.scores) == pytest.approx(scores, abs=1e-5)
