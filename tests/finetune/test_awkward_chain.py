"""Stacks and tiles of classes with the worst of names, in folders with the worst of names.

They are checked, split, trained on and compared over folds, each with what was written before.
"""

import csv
import re
import shutil
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_prep.cli import check, label_fraction, split
from data_prep.csv_files import read_rows
from data_prep.manifest.manifest import Manifest, Record
from data_prep.reading.spec import parse_reading
from finetune.cli import finetune, folds
from tests.finetune.runs import write_encoder

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.slow

FOLDER = "-run [b=8] 1 *?{x}%20#\"q'; 한국 $HOME & <i> ~" + "n" * 60
CLASSES = ('=HYPERLINK("http://x")', "-x", "<b>&@a")
PAGES, TILES = 6, ("0,0,16,16", "16,0,16,16")
TINY = (
    "--train_batch_size=8", "--train_epochs=1", "--precision=float32", "--bootstrap=100",
    "--nofloors", "--nomemory_check",
)  # fmt: skip


class Place(NamedTuple):
    """What a table says of where an image is."""

    file: str
    page: str
    tile: str

    @staticmethod
    def of_record(record: Record) -> "Place":
        page = parse_reading(record.reading).page if record.reading else None
        return Place(Path(record.path).name, "" if page is None else str(page), record.tile)

    @staticmethod
    def of_row(row: dict[str, Any]) -> "Place":
        return Place(Path(row["path"]).name, row.get("page", ""), row.get("tile", ""))


def command(module: ModuleType, *flags: str, handed_on: tuple[str, ...] = ()) -> None:
    assert module.main([*flags, *(["--", *handed_on] if handed_on else [])]) == 0


def write_images(folder: Path) -> Manifest:
    """Of each class a stack as NPY, as TIFF and as HDF5, and a picture of two tiles."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    records: list[Record] = []
    for number, label in enumerate(CLASSES):
        values = rng.normal(60 + 60 * number, 20, (4, PAGES, 16, 16)).clip(0, 255).astype(np.uint8)
        names = [f"-{number} [a]*?{{b}}#%.{ending}" for ending in ("npy", "tif", "h5", "png")]
        np.save(folder / names[0], values[0])
        tifffile.imwrite(folder / names[1], values[1], metadata=None)
        with h5py.File(folder / names[2], "w") as file:
            file["stack"] = values[2]
        Image.fromarray(np.hstack(list(values[3, :2]))).save(folder / names[3])
        for page in range(PAGES):
            records += [
                Record(names[0], label, reading=f"page={page};axes=NHW"),
                Record(names[1], label, reading=f"page={page}"),
                Record(names[2], label, reading=f"page={page};axes=NHW;array=stack"),
            ]
        records += [Record(names[3], label, tile=tile) for tile in TILES]
    return Manifest(tuple(records), str(folder))


class Set(NamedTuple):
    """Images, and what the first commands have made of them."""

    base: Path
    images: Manifest
    split: Manifest


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Set:
    base = tmp_path_factory.mktemp("awkward") / FOLDER
    images = write_images(base / "images")
    images.save(base / "all.csv")
    command(check, f"--manifest={base / 'all.csv'}", f"--output={base / 'check'}")
    command(
        split, f"--manifest={base / 'all.csv'}", f"--output={base / 'split.csv'}",
        "--ratios=train:0.5,validation:0.25,test:0.25", "--near_duplicates=ignore",
    )  # fmt: skip
    write_encoder(base / "encoder.keras", channels=1)
    command(
        finetune, f"--encoder={base / 'encoder.keras'}", f"--manifest={base / 'split.csv'}",
        f"--output={base / 'run'}", *TINY,
    )  # fmt: skip
    return Set(base, images, Manifest.load(base / "split.csv"))


def check_pages(folder: Path) -> None:
    """All pages below a folder: links that lead to files, and no name that is taken for HTML."""
    pages = [page for page in folder.rglob("*.html") if page.is_file()]
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "<b>&" not in text, page
        assert "<i> ~" not in text, page
        for link in re.findall(r'<(?:a|img)\b[^>]*?\b(?:href|src)="([^"]*)"', text):
            if not link.startswith(("data:", "#", "http")):
                assert (page.parent / unquote(urlsplit(link).path)).exists(), (page, link)


def check_no_formulas(folder: Path) -> None:
    for file in folder.rglob("*.csv"):
        with file.open(encoding="utf-8", newline="") as stream:
            for row in csv.reader(stream):
                assert not [cell for cell in row if cell.startswith(("=", "@", "<b>=", "-x"))], file


def test_images_of_files_are_told_apart(made: Set) -> None:
    base, images = made.base, made.images
    every = Counter(map(Place.of_record, images.records))
    assert Counter(map(Place.of_record, made.split.records)) == every
    assert set(every.values()) == {1}
    labels = {Place.of_record(record): record.label for record in images.records}
    assert made.split.class_names == tuple(sorted(CLASSES))

    command(
        label_fraction, f"--manifest={base / 'split.csv'}", f"--output={base / 'few.csv'}",
        "--labels_per_class=2", "--unchosen=left_out",
    )  # fmt: skip
    few = Manifest.load(base / "few.csv").split("train")
    assert Counter(r.label for r in few.records) == dict.fromkeys(CLASSES, 2)

    scores = {Place.of_row(row): row for row in read_rows(base / "run" / "predictions.csv")}
    assert set(scores) == set(map(Place.of_record, made.split.records))
    assert {place: row["true"] for place, row in scores.items()} == labels
    check_pages(base / "check")
    check_pages(base / "run")
    check_no_formulas(base)


def test_folds_of_them_are_compared(made: Set) -> None:
    base = made.base
    command(
        folds, f"--manifest={base / 'all.csv'}", "--folds=2", f"--output={base / 'folds'}",
        "--validation=0.2",
        handed_on=(f"--encoder={base / 'encoder.keras'}", *TINY),
    )  # fmt: skip
    tested = Counter(
        Place.of_row(row)
        for number in "12"
        for row in read_rows(base / "folds" / f"fold_{number}" / "predictions.csv")
        if row["split"] == "test"
    )
    assert tested == Counter(map(Place.of_record, made.images.records))
    shutil.copytree(base / "folds", base / "folds again")
    command(
        folds, f"--compare={base / 'folds'},{base / 'folds again'}",
        f"--output={base / 'compared'}",
    )  # fmt: skip
    for folder in (base / "folds", base / "compared"):
        check_pages(folder)
    check_no_formulas(base)
