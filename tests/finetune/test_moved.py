"""Runs that were moved with their images, or whose images lie elsewhere, go on."""

import csv
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.csv_files import read_rows
from finetune.cli import finetune as finetune_command
from finetune.cli import predict as predict_command
from finetune.report.files import read_results
from finetune.serve.answer import open_neighbors
from finetune.trained import open_trained
from simclr_tf.cli import embed as embed_command
from simclr_tf.embedding.stored import open_stored
from tests.finetune.runs import RESNET, write_encoder

pytestmark = pytest.mark.slow

KOREAN = "석영"
DECOMPOSED = unicodedata.normalize("NFD", KOREAN)
FORMULA = "=1+1 [a]*?{b}#%"
TINY = (
    "--train_batch_size=8", "--eval_batch_size=16", "--train_epochs=1", "--precision=float32",
    "--bootstrap=100",
)  # fmt: skip


def write_images(root: Path) -> None:
    """Two classes told apart by brightness; train composed, test decomposed."""
    rng = np.random.default_rng(0)
    for split, korean in (("train", KOREAN), ("validation", KOREAN), ("test", DECOMPOSED)):
        for level, name in ((40, korean), (200, FORMULA)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(8):
                pixels = rng.integers(level - 20, level + 20, (32, 32, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{split}, {number}.png")


def command(module, *arguments: str) -> int:
    return module.main(arguments)


def train(base: Path, images: Path) -> int:
    return command(
        finetune_command, f"--encoder={base / 'encoder.keras'}", f"--image_dir={images}",
        f"--output={base / 'run'}", *TINY,
    )  # fmt: skip


def embed(base: Path, *more: str) -> int:
    return command(embed_command, "--bootstrap=100", "--projections=pca", *more)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("moved") / "here"
    write_images(base / "images")
    write_encoder(base / "encoder.keras", **RESNET)
    assert train(base, base / "images") == 0
    assert embed(
        base, f"--encoder={base / 'encoder.keras'}", f"--image_dir={base / 'images'}",
        f"--output={base / 'embedding'}",
    ) == 0  # fmt: skip
    return base


def test_run_goes_on_in_another_place(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_results(here / "run").splits["test"].scores
    assert read_results(here / "run").results.class_names == (FORMULA, KOREAN)
    text = (here / "run" / "predictions.csv").read_text(encoding="utf-8")
    assert not [line for line in csv.reader(text.splitlines()) if line[0].startswith("=")]
    rows = read_rows(here / "run" / "manifest.csv")
    assert {row["relative_root"] for row in rows} == {"../images"}
    listed = {row["path"] for row in rows}
    assert {row["path"] for row in read_rows(here / "run" / "predictions.csv")} == listed

    there = here.with_name("there")
    here.rename(there)
    try:
        (there / "run" / "report.html").unlink()
        assert train(there, there / "images") == 0
        assert (there / "run" / "report.html").is_file()
        np.testing.assert_array_equal(read_results(there / "run").splits["test"].scores, before)
        page = (there / "run" / "report.html").read_text(encoding="utf-8")
        said, moved, rest = page.split("<footer")[0].partition(f"encoder was {here}")
        assert moved, "what was taken to be the same is a warning of the run"
        told = said + rest.partition(" now.")[2]
        assert str(here) not in told.replace(str(there), "")

        predicted = tmp_path / "predicted.csv"
        arguments = (f"--model={there / 'run'}", f"--output={predicted}")
        manifest = f"--manifest={there / 'run' / 'manifest.csv'}"
        assert command(predict_command, *arguments, manifest) == 0
        assert len(read_rows(predicted)) == 48
        assert all(os.path.exists(row["path"]) for row in read_rows(predicted))

        trained = open_trained(there / "run")
        assert len(open_neighbors(trained).images) == 16
        stored = open_stored(there / "embedding")
        assert all(map(os.path.exists, stored.images.files()))
        assert embed(there, f"--embedding={there / 'embedding'}") == 0

        elsewhere = tmp_path / "elsewhere"
        (there / "images").rename(elsewhere)
        (there / "run" / "neighbours.npz").unlink()
        capsys.readouterr()
        assert len(open_neighbors(trained).images) == 0
        assert "--image_dir=FOLDER beside --manifest gives" in capsys.readouterr().err
        assert len(open_neighbors(trained, image_dir=str(elsewhere)).images) == 16
        predicted.unlink()
        assert command(predict_command, *arguments, manifest, f"--image_dir={elsewhere}") == 0
        assert len(read_rows(predicted)) == 48
        assert embed(there, f"--embedding={there / 'embedding'}", f"--image_dir={elsewhere}") == 0
        assert train(there, elsewhere) == 0
    finally:
        if not (there / "images").exists():
            (tmp_path / "elsewhere").rename(there / "images")
        there.rename(here)
