import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.page import Section
from finetune.report.files import read_results, write_results
from finetune.report.page import RunFacts, classification_page, write_report
from finetune.report.results import evaluate_classifier
from tests.chromium import look_at
from tests.finetune.scores import scored

NASTY = ("<script>alert(1)</script>", 'a&b"c', "_hidden $x$ name")
HISTORY = {"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.5], "val_loss": [3.1, 2.5, 2.4]}


def run(folder: Path, names: tuple[str, ...] = NASTY, **facts: object) -> RunFacts:
    """Results of three splits in a folder, and what belongs to them."""
    splits = {name: scored(name, 48, len(names)) for name in ("train", "validation", "test")}
    results = evaluate_classifier(splits, names, resamples=20)
    write_results(folder, results, splits, HISTORY)
    (folder / "test").mkdir()
    records = []
    for split in splits.values():
        for path, label in zip(split.paths, split.labels, strict=True):
            records.append(Record(path, names[label], split.split, f"{split.split} {path[-5]}"))
            if split.split == "test":
                gray = np.full((12, 16), len(records), np.uint8)
                Image.fromarray(gray).save(folder / path)
    views = np.random.default_rng(0).random((4, 2, 16, 16, 1))
    return RunFacts(
        title=NASTY[0],
        command=("simclr-finetune", "--image_dir=my images", f"--labels={NASTY[1]}"),
        manifest=Manifest(tuple(records), str(folder)),
        views=views,
        settings={"epochs": "3", NASTY[1]: NASTY[0]},
        **facts,  # type: ignore[arg-type]
    )


def plain_text(html: str) -> str:
    return re.sub(r"data:image/\w+;base64,[\w+/=]+", "", html)


def test_the_page_has_every_part_in_a_single_file(tmp_path: Path) -> None:
    facts = run(tmp_path, sections=(Section("Folds"),))
    page = write_report(tmp_path, facts)
    assert page == tmp_path / "report.html"
    html = page.read_text(encoding="utf-8")
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "Data", "Metrics", "Classes", "Curves of the test images", "Most confident mistakes",
        "Learning curves", "What the model is shown", "Folds", "To repeat it", "How this was made",
    ]  # fmt: skip
    wrong = 48 - np.trace(read_results(tmp_path).results.splits["test"].confusion)
    assert html.count("<img ") == 1 + 3 + min(wrong, 15) + 1 + 1
    assert not re.search(r"https?:|<link|<iframe|<script|url\(", plain_text(html))
    assert set(re.findall(r'src="(.{10})', html)) == {"data:image"}
    assert "simclr-finetune &#39;--image_dir=my images&#39;" in html


def test_names_are_escaped_wherever_they_come(tmp_path: Path) -> None:
    html = plain_text(write_report(tmp_path, run(tmp_path)).read_text(encoding="utf-8"))
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    assert html.count("a&amp;b&#34;c") > 5
    assert 'a&b"c' not in html


def test_numbers_on_the_page_are_those_of_the_files(tmp_path: Path) -> None:
    facts = run(tmp_path)
    page = classification_page(read_results(tmp_path), facts)
    test = read_results(tmp_path).results.splits["test"]
    metrics = page.sections[1].tables[0]
    assert metrics.headers == (
        "metric", "test\n48 images", "validation\n48 images", "train\n48 images",
    )  # fmt: skip
    accuracy = test.metrics["accuracy"]
    expected = f"{accuracy.value:.3f}\n[{accuracy.low:.3f}, {accuracy.high:.3f}]"
    assert metrics.rows[0][:2] == ("accuracy", expected)
    assert f"accuracy {accuracy.value:.3f}" in page.summary[0]
    counts = page.sections[0].tables[0]
    assert counts.headers == ("class", "train", "validation", "test", "all")
    assert counts.rows[-1] == ("all", "48", "48", "48", "144")
    assert [row[0] for row in page.sections[2].tables[0].rows] == list(NASTY)


def test_leaks_come_first(tmp_path: Path) -> None:
    facts = run(tmp_path)
    assert facts.manifest
    assert "Do not trust" not in classification_page(read_results(tmp_path), facts).summary[0]
    records = [replace(record, group="one core") for record in facts.manifest.records]
    leaky = replace(facts, manifest=facts.manifest.subset(records))
    page = classification_page(read_results(tmp_path), leaky)
    assert page.summary[0].startswith("Do not trust these numbers")
    leaks = page.sections[0].tables[1]
    assert leaks.rows[leaks.highlight[0]][0] == "the same group"


def test_the_baseline_is_the_most_frequent_class_of_the_training_images(tmp_path: Path) -> None:
    names = ("ant", "bee")
    split = scored("test", 40, 2)
    test = split.take(np.flatnonzero((split.labels == 0) | (np.arange(40) < 10)))
    splits = {"train": scored("train", 41, 2), "test": test}
    write_results(tmp_path, evaluate_classifier(splits, names, resamples=5), splits)
    page = classification_page(read_results(tmp_path), RunFacts("x"))
    assert "Always saying 'ant'" in page.summary[1]
    assert "right for 0.800 of them, with a balanced accuracy of 0.500" in page.summary[1]


def test_a_bare_run_without_manifest_test_or_history_has_a_page(tmp_path: Path) -> None:
    splits = {"validation": scored("validation", 12, 2)}
    write_results(tmp_path, evaluate_classifier(splits, ("a", "b"), resamples=5), splits)
    html = write_report(tmp_path, RunFacts("Bare")).read_text(encoding="utf-8")
    assert "There is no test split" in html
    assert "leaks between splits could not be looked for" in html
    with pytest.raises(UserError, match="no results"):
        write_report(tmp_path / "elsewhere", RunFacts("x"))


@pytest.mark.slow
def test_the_same_results_give_the_same_page(tmp_path: Path) -> None:
    facts = run(tmp_path)
    first = write_report(tmp_path, facts).read_bytes()
    assert write_report(tmp_path, facts).read_bytes() == first


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 13])
def test_in_a_browser_all_figures_show_and_no_text_overlaps(tmp_path: Path, classes: int) -> None:
    names = (*NASTY, *(f"tetragonal_face_bcc_{i}" for i in range(10)))[:classes]
    page = write_report(tmp_path, run(tmp_path, names))
    for seen in look_at(page, tmp_path):
        assert seen["console"] == []
        assert seen["scripts"] == 0
        assert seen["title"] == NASTY[0]
        assert seen["content"] <= seen["width"]
        assert len(seen["images"]) > 6
        assert all(dots > 0 and shown > 60 and alt for dots, shown, alt in seen["images"])
        assert seen["overlaps"] == []
        assert NASTY[0] in seen["text"]


@pytest.mark.slow
def test_the_browser_notices_what_it_is_meant_to(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!DOCTYPE html><script>console.error('loud')</script><img alt=x src='data:image/png,x'>"
        "<p style='position:absolute;top:99px'>one</p><p style='position:absolute;top:99px'>two</p>"
        "<div style='width:900px'>wide</div>"
    )
    seen = look_at(bad, tmp_path, (390,))[0]
    assert any("loud" in line for line in seen["console"])
    assert seen["images"][0][0] == 0
    assert seen["overlaps"] == [["one", "two"]]
    assert seen["content"] > seen["width"] == 390
