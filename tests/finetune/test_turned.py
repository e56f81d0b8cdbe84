"""Photographs stored upright, and the same stored turned: every command gives the same of both."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_prep.cli import augment, check, tfrecord
from data_prep.csv_files import read_rows
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.read_options import Declaration
from data_prep.manifest.scan import scan_folder
from data_prep.reading.images import read_image
from data_prep.reading.training_files import TrainingReading
from data_prep.sources.streams import TFRecordSource
from finetune.cli import predict
from finetune.serve.answer import Classify, Neighbors
from finetune.trained import open_trained
from simclr_tf.checkpoints.preprocessing import Preprocessing, write_record
from simclr_tf.cli import embed
from tests.finetune.networks import write_run

pytestmark = pytest.mark.slow

SIZE, CLASSES = 32, ("a", "b")
TAG = 274
# What a viewer does with stored pixels, undone.
STORED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: np.rot90,
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image, -1),
}


def save(file: Path, image: np.ndarray, orientation: int) -> None:
    stored = np.ascontiguousarray(image)
    if file.suffix == ".tif":
        tifffile.imwrite(file, stored, extratags=[(TAG, 3, 1, orientation, True)])
        return
    exif = Image.Exif()
    exif[TAG] = orientation
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}
    Image.fromarray(stored).save(file, exif=exif, **options.get(file.suffix, {}))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `upright` and `turned` of the same photographs, and a network."""
    base = tmp_path_factory.mktemp("turned")
    rng = np.random.default_rng(0)
    for ending in ("jpg", "png", "webp", "tif"):
        for orientation, turn in STORED.items():
            # Without fine detail, so that a JPEG holds the same whichever way it lies.
            image = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            name = f"{CLASSES[orientation % 2]}/{orientation}.{ending}"
            for folder, stored, number in (
                ("upright", image, 1), ("turned", turn(image), orientation),
            ):  # fmt: skip
                (base / folder / name).parent.mkdir(parents=True, exist_ok=True)
                save(base / folder / name, stored, number)
    # A record without a word of the orientation is that of a network of before, which ignores it.
    record = Preprocessing(
        SIZE, 3, CLASSES, reading=TrainingReading(Declaration().record())
    ).record()
    write_record(write_run(base / "run", CLASSES, size=SIZE), record)
    for folder in ("upright", "turned"):
        images = scan_folder(base / folder)
        listed = tuple(replace(record, split="train") for record in images.records)
        Manifest(listed, images.root).save(base / f"{folder}.manifest.csv")
    return base


def command(module: ModuleType, *flags: str) -> None:
    assert module.main(flags) == 0


def numbers(file: Path, prefix: str) -> dict[str, list[float]]:
    """The numbers of a table by name of the image."""
    return {
        "/".join(Path(row["path"]).parts[-2:]): [
            float(value) for column, value in row.items() if column.startswith(prefix)
        ]
        for row in read_rows(file)
    }


def check_same(found: dict[str, list[float]], known: dict[str, list[float]]) -> None:
    assert found.keys() == known.keys()
    for name, values in known.items():
        tolerance = 0.01 if name.endswith(".jpg") else 1e-6
        np.testing.assert_allclose(found[name], values, atol=tolerance, err_msg=name)


def test_predict_embed_and_serve(base: Path) -> None:
    for folder in ("upright", "turned"):
        command(
            predict, f"--model={base / 'run'}", f"--image_dir={base / folder}",
            f"--output={base / folder}.csv", "--top_k=1",
        )  # fmt: skip
        command(
            embed, f"--encoder={base / 'run'}", f"--image_dir={base / folder}",
            f"--output={base / folder}.embedding", "--bootstrap=0", "--noexplore",
            "--nolinear_probe", "--nohdbscan",
        )  # fmt: skip
    check_same(numbers(base / "turned.csv", "score_"), numbers(base / "upright.csv", "score_"))
    features = [
        np.load(base / f"{folder}.embedding" / "features.npy") for folder in ("upright", "turned")
    ]
    exact = [not record.path.endswith(".jpg") for record in scan_folder(base / "upright").records]
    np.testing.assert_allclose(features[0][exact], features[1][exact], atol=1e-5)
    trained = open_trained(str(base / "run"))
    classify = Classify(trained, Neighbors(Manifest(()), np.zeros((0, 1), np.float32)))
    known = numbers(base / "upright.csv", "score_")
    served = {
        name: [classify(name, (base / "turned" / name).read_bytes()).scores[0][1]] for name in known
    }
    check_same(served, known)


def test_the_rule_travels_with_the_network(base: Path) -> None:
    """Stored pixels for a network that was trained on them, whatever is given later."""
    ignoring = write_run(base / "ignoring", CLASSES, size=SIZE)
    declared = Preprocessing(
        SIZE, 3, CLASSES, reading=TrainingReading(Declaration(exif="ignore").record())
    ).record()
    for kind, record in (("declared", declared), ("before", None)):
        if record:
            write_record(ignoring, record)
        else:  # as version 0.1 wrote it
            write_record(ignoring, Preprocessing(SIZE, 3, CLASSES).record())
        for folder in ("upright", "turned"):
            command(
                predict, f"--model={ignoring}", f"--image_dir={base / folder}",
                f"--output={base / folder}.{kind}.csv", "--top_k=1",
            )  # fmt: skip
        upright, stored = (
            numbers(base / f"{folder}.{kind}.csv", "score_") for folder in ("upright", "turned")
        )
        for name, values in stored.items():
            same = np.allclose(values, upright[name], atol=1e-6)
            assert same == (Path(name).stem == "1"), name


def test_check_shards_and_copies(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    command(check, f"--image_dir={base / 'turned'}", "--near_distance=-1")
    assert "28 " in (said := capsys.readouterr().out)
    assert "turned" in said
    pixels = {}
    for folder in ("upright", "turned"):
        images = f"--manifest={base / folder}.manifest.csv"
        command(tfrecord, images, f"--output={base / folder}.shards", "--num_shards=1")
        command(
            augment, images, f"--output={base / folder}.copies", "--operations=hflip",
            "--workers=1",
        )  # fmt: skip
        source = TFRecordSource(base / f"{folder}.shards")
        pixels[folder] = [
            source.decode(element).numpy()
            for element in source.elements(seed=0, shuffle=False, start=0, batch_size=1)
        ]
    for found, known in zip(pixels["turned"], pixels["upright"], strict=True):
        np.testing.assert_allclose(found.astype(float), known, atol=12)
    copies = [scan_folder(f"{base / folder}.copies") for folder in ("upright", "turned")]
    assert [r.path for r in copies[0].records] == [r.path for r in copies[1].records]
    for known, found in zip(copies[0].files(), copies[1].files(), strict=True):
        tolerance = 12 if known.endswith(".jpg") else 0
        difference = read_image(found).astype(int) - read_image(known)
        assert np.abs(difference).max() <= tolerance, known
