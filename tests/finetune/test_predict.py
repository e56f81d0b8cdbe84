"""Predictions of any number of images: nothing grows, nothing stops, nothing is lost."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.read_options import Declaration
from finetune import predict
from finetune.predict import PredictSettings, list_images, predict_images
from finetune.report.files import write_results
from finetune.report.results import evaluate_classifier
from finetune.report.scored_split import ScoredSplit
from finetune.report.side_files import unreadable_file
from finetune.trained import Trained, open_trained
from tests.finetune.networks import write_run
from tests.images import make_folder, picture


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return open_trained(str(write_run(tmp_path_factory.mktemp("three") / "run", ("a", "b", "c"))))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images"), per_class=4, size=24)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def predicted(
    trained: Trained,
    folder: Path,
    output: Path,
    declaration: Declaration | None = None,
    **how: float,
) -> list[dict[str, str]]:
    listed = list_images(str(folder), "", declaration or Declaration())
    settings = PredictSettings(**{"batch_size": 8, **how})  # type: ignore[arg-type]
    predict_images(trained, listed, output, settings)
    return rows(output)


def scores_of(row: dict[str, str]) -> dict[str, float]:
    ranks = range(1, 1 + sum(name.startswith("class_") for name in row))
    return {row[f"class_{k}"]: float(row[f"score_{k}"]) for k in ranks}


@pytest.mark.slow
def test_what_is_said_of_an_image_does_not_depend_on_the_images_beside_it(
    three: Trained, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of three files, one of them with 16 bits, give what one chunk of 8 bits gives."""
    alone = predicted(three, images, tmp_path / "alone.csv")
    more = tmp_path / "more"
    make_folder(more, per_class=4, size=24)
    gray = np.arange(24 * 24, dtype=np.uint16).reshape(24, 24) * 100
    Image.fromarray(gray).save(more / "dots" / "a16.png")
    monkeypatch.setattr(predict, "_FILES", 3)
    monkeypatch.setattr(predict, "_IMAGES", 2)
    together = {Path(r["path"]).name: r for r in predicted(three, more, tmp_path / "more.csv")}
    assert len(together) == len(alone) + 1 == 13
    for row in alone:
        other = together[Path(row["path"]).name]
        assert row["predicted"] == other["predicted"]
        assert scores_of(row) == pytest.approx(scores_of(other), abs=1e-6)


def test_scores_read_back_as_the_very_numbers_and_sum_to_one(
    three: Trained, images: Path, tmp_path: Path
) -> None:
    for row in predicted(three, images, tmp_path / "p.csv"):
        scores = scores_of(row)
        assert sum(scores.values()) == pytest.approx(1, abs=1e-12)
        assert all(repr(value) in row.values() for value in scores.values())
        assert row["predicted"] == row["class_1"] == max(scores, key=scores.__getitem__)


def test_unreadable_files_are_listed_with_the_reason_and_the_rest_is_predicted(
    three: Trained, images: Path, tmp_path: Path
) -> None:
    """Empty, no image, and cut short or damaged where only decoding tells."""
    folder = make_folder(tmp_path / "images", per_class=4, size=24)
    good = predicted(three, folder, tmp_path / "good.csv")
    (folder / "dots" / "empty.png").touch()
    (folder / "dots" / "text.jpg").write_text("not an image")
    whole = (folder / "dots" / "dots_000.png").read_bytes()
    (folder / "dots" / "damaged.png").write_bytes(whole[:200] + bytes(60) + whole[260:])
    output = tmp_path / "p.csv"
    found = predicted(three, folder, output)
    assert [r["path"] for r in found] == [r["path"] for r in good]
    problems = {r["path"]: r["problem"] for r in rows(unreadable_file(output))}
    assert set(problems) == {"dots/empty.png", "dots/text.jpg", "dots/damaged.png"}
    assert all(problems.values())
    assert not list(tmp_path.glob(".*"))


def test_a_bad_page_does_not_take_the_others_of_its_file_away(
    three: Trained, images: Path, tmp_path: Path
) -> None:
    stack = np.random.default_rng(0).uniform(size=(3, 24, 24)).astype(np.float32)
    stack[1, 3, 4] = np.nan  # only decoding tells
    (tmp_path / "stacks").mkdir()
    np.save(tmp_path / "stacks" / "s.npy", stack)
    output = tmp_path / "p.csv"
    found = predicted(three, tmp_path / "stacks", output, Declaration(axes="NHW"))
    assert [row["page"] for row in found] == ["0", "2"]
    (bad,) = rows(unreadable_file(output))
    assert (bad["path"], bad["page"]) == ("s.npy", "1")
    assert "finite" in bad["problem"]


def test_if_nothing_can_be_read_nothing_is_written(three: Trained, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").touch()
    with pytest.raises(UserError, match=r"none of the images can be read; x\.png: .*empty"):
        predicted(three, tmp_path / "images", tmp_path / "out" / "p.csv")
    assert not list((tmp_path / "out").iterdir())


def test_pages_and_tiles_are_told_apart(three: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pages = np.stack([picture("dots", 40, rng) for _ in range(2)])
    tifffile.imwrite(folder / "stack.tif", pages, photometric="rgb")
    Image.fromarray(pages[0][:20, :20]).save(folder / "small.png")
    found = predicted(three, folder, tmp_path / "p.csv", Declaration(page="all", tile=20), top_k=1)
    places = [(Path(r["path"]).name, r["tile"], r["page"]) for r in found]
    boxes = ["0,0,20,20", "20,0,20,20", "0,20,20,20", "20,20,20,20"]
    stack = [("stack.tif", box, page) for page in "01" for box in boxes]
    assert places == [("small.png", "0,0,20,20", ""), *stack]
    # A tile is what the picture cut out by hand is.
    assert scores_of(found[0]) == pytest.approx(scores_of(found[1]), abs=1e-6)


def test_the_threshold_is_the_one_that_the_run_chose_on_validation(
    images: Path, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", ("no", "yes"))
    plain = predicted(open_trained(str(run)), images, tmp_path / "plain.csv")
    scores = np.array([[scores_of(r)["no"], scores_of(r)["yes"]] for r in plain])
    order = np.argsort(scores[:, 1])
    labels = np.zeros(12, np.int64)
    labels[order[3:]] = 1  # the best threshold lies between the third and the fourth score
    split = ScoredSplit("validation", tuple(map(str, range(12))), labels, scores)
    results = evaluate_classifier({"validation": split}, ("no", "yes"), resamples=10)
    write_results(run, results, {"validation": split})
    middle = scores[order[2:4], 1].mean()
    assert json.loads((run / "report.json").read_text())["decision"]["threshold"] == middle

    said = [r["predicted"] for r in predicted(open_trained(str(run)), images, tmp_path / "p.csv")]
    assert said == ["yes" if label else "no" for label in labels]
    assert said != [r["class_1"] for r in plain]
    other = predicted(open_trained(str(run)), images, tmp_path / "o.csv", threshold=2 * middle)
    assert [r["predicted"] for r in other] == [
        "yes" if score >= 2 * middle else "no" for score in scores[:, 1]
    ]


def test_a_threshold_needs_two_classes(three: Trained, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs two classes, the network has 3"):
        predicted(three, images, tmp_path / "p.csv", threshold=0.5)


def test_below_the_confidence_asked_for_no_class_is_predicted(
    three: Trained, images: Path, tmp_path: Path
) -> None:
    plain = predicted(three, images, tmp_path / "p.csv")
    best = sorted(float(r["score_1"]) for r in plain)
    unsure = predicted(three, images, tmp_path / "u.csv", abstain=best[5])
    assert [(r["predicted"], r["abstained"]) for r in unsure] == [
        (r["class_1"], "") if float(r["score_1"]) >= best[5] else ("", "yes") for r in plain
    ]
    assert sum(r["abstained"] == "yes" for r in unsure) == sum(b < best[5] for b in best) > 0


def test_a_manifest_brings_its_own_readings_and_unknown_labels_are_no_matter(
    three: Trained, images: Path, tmp_path: Path
) -> None:
    files = sorted(images.glob("*/*.png"))[:3]
    records = (
        Record(str(files[0]), label="never seen", split="test"),
        Record(str(files[1]), split="train", tile="2,3,20,20"),
        Record(str(tmp_path / "gone.png"), split="train"),
    )
    Manifest(records).save(tmp_path / "m.csv")
    listed = list_images("", str(tmp_path / "m.csv"), Declaration())
    done = predict_images(three, listed, tmp_path / "p.csv", PredictSettings(batch_size=8))
    assert (done.images, done.unreadable) == (2, 1)
    assert [(r["path"], r["tile"]) for r in rows(tmp_path / "p.csv")] == [
        (str(files[0]), ""), (str(files[1]), "2,3,20,20"),
    ]  # fmt: skip


_MEASURE = """
import resource, sys
from pathlib import Path
from data_prep.manifest.read_options import Declaration
from finetune.predict import list_images
from finetune.predict import PredictSettings, predict_images
from finetune.trained import open_trained

trained = open_trained(sys.argv[1])
settings = PredictSettings(batch_size=64)
for folder in sys.argv[2:]:
    listed = list_images(folder, "", Declaration())
    done = predict_images(trained, listed, Path(folder + ".csv"), settings)
    print(done.images, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Decoded, the larger set takes 96 MiB more than the smaller one."""
    run = write_run(tmp_path / "run", ("a", "b"))
    rng = np.random.default_rng(0)
    Image.fromarray(picture("dots", 128, rng)).save(tmp_path / "one.jpg")
    folders = []
    for number in (1100, 3148):
        folder = tmp_path / f"n{number}"
        folder.mkdir()
        for i in range(number):
            os.link(tmp_path / "one.jpg", folder / f"{i:05d}.jpg")
        folders.append(str(folder))
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(run), *folders],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (few, before), (many, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (few, many) == (1100, 3148)
    assert after - before < 25
