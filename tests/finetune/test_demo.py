import csv
import json
import re
from pathlib import Path

import pytest

from data_prep.errors import UserError
from data_prep.manifest.scan import scan_folder
from finetune.cli.demo import main
from finetune.compare.advice import Advice
from finetune.compare.images import divide_images
from finetune.compare.results import ComparisonResults
from finetune.demo import Demo, demo_head, numbers, prepare_output
from finetune.sections import DemoSettings
from tests.docs import readme_arguments
from tests.finetune.compare.tables import table
from tests.images import make_folder


def demo(*arguments: str) -> int:
    return main(list(arguments))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("demo") / "images", per_class=10, channels=1)


@pytest.fixture(scope="module")
def finished(images: Path) -> Path:
    """The demonstration on a user's own tiny folder, by the README's line made smaller."""
    out = images.parent / "out"
    tiny = ["--image_size=32", "--labels_per_class=2", "--draws=2", "--pretrain_steps=2"]
    line = readme_arguments("simclr-demo")
    arguments = [*line, f"--image_dir={images}", f"--output={out}", *tiny, "--finetune_steps=2"]
    assert demo(*arguments) == 0
    return out


@pytest.mark.slow
def test_both_networks_get_as_many_steps_on_the_same_labels(finished: Path) -> None:
    with open(finished / "comparison" / "results.csv") as stream:
        rows = list(csv.DictReader(stream))
    trained = [r for r in rows if r["steps"] != "0"]
    assert {r["strategy"] for r in trained} == {"from scratch", "pretrained, fine-tuned"}
    assert {r["steps"] for r in trained} == {"2"}
    assert {r["labels"] for r in rows} == {"6", "12"}


@pytest.mark.slow
def test_the_page_begins_with_the_gain_and_one_figure(finished: Path) -> None:
    page = (finished / "index.html").read_text()
    result = json.loads((finished / "result.json").read_text())
    assert "What unlabelled images are worth" in page
    assert page.count("data:image/png;base64,") == 1
    value, low, high = result["gain_over_scratch"]
    assert f"{100 * value:+.1f} points" in page
    assert f"{100 * low:+.1f} to {100 * high:+.1f}" in page
    for name, (value, low, high) in result["test_accuracy"].items():
        assert 0 <= low <= value <= high <= 1
        assert name.rsplit(",", 1)[0] in page
        assert f"{value:.3f}" in page
    assert result["images"] == {"train": 24, "test": 6}
    assert set(result["seconds"]) == {"images", "pretraining", "fine-tuning"}
    assert "simclr-demo" in page
    assert "--labels_per_class=2" in page
    assert not re.search(r'(src|href)="https?:', page)


@pytest.mark.slow
def test_other_settings_in_the_same_folder_are_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "index.html").read_bytes()
    assert demo(f"--output={finished}", "--draws=3") == 1
    assert "holds a demonstration with other settings" in capsys.readouterr().err
    assert (finished / "index.html").read_bytes() == before


ROWS = {
    "untrained features, linear probe": (0.1, 0.1),
    "from scratch": (0.5, 0.9),
    "pretrained, linear probe": (0.6, 0.7),
    "pretrained, fine-tuned": (0.7, 0.8),
}


def made_results() -> ComparisonResults:
    gained = ("pretrained, fine-tuned", "from scratch", 0)
    lost = ("from scratch", "pretrained, fine-tuned", 1)
    apart = {gained: (0.13, 0.27), lost: (0.06, 0.14)}
    return table(ROWS, apart, labels=(15, 300))


def test_the_sentence_tells_the_gain_with_few_labels_and_the_loss_with_all(images: Path) -> None:
    demonstration = Demo(
        DemoSettings(image_dir=str(images), labels_per_class=2, draws=2),
        Path("unused"),
        lambda what: lambda done, total: None,
    )
    settings = demonstration.comparison()
    division = divide_images(scan_folder(images), settings, lambda what: lambda done, total: None)
    (sentence,) = demo_head(made_results(), Advice(""), division).summary
    assert sentence == (
        "On 84 test images that no step has seen, and with 5 labels a class, pretraining on 24"
        " images without labels changes the accuracy by +20.0 points (95 % interval of the paired"
        " difference +13.0 to +27.0) over training from scratch on the same labels for as many"
        " steps; with all 300 labels by -10.0 points (-14.0 to -6.0)."
    )
    facts = numbers(made_results(), division)
    assert facts["gain_over_scratch"] == pytest.approx([0.2, 0.13, 0.27])
    assert facts["gain_over_scratch_with_all_labels"] == pytest.approx([-0.1, -0.14, -0.06])


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not empty"):
        prepare_output(tmp_path, DemoSettings())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_missing_image_folder_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert demo(f"--image_dir={tmp_path / 'nowhere'}", f"--output={out}") == 1
    assert "image folder not found" in capsys.readouterr().err
    assert not out.exists()


def test_a_flag_that_has_lost_its_meaning_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (f"--image_dir={tmp_path / 'nowhere'}", f"--output={tmp_path / 'out'}")
    demo(*arguments, "--scratch_steps=5")
    assert capsys.readouterr().err.count("--scratch_steps=5 has no effect any more") == 1


def test_more_labels_a_class_than_there_are_end_in_one_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (f"--image_dir={images}", f"--output={tmp_path / 'out'}", "--labels_per_class=9")
    assert demo(*arguments) == 1
    assert "9 labels a class was left out: it is more than there are" in capsys.readouterr().err
