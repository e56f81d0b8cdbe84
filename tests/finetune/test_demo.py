import json
import re
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from finetune.cli.demo import main
from finetune.demo import DemoSettings, prepare_output
from tests.docs import readme_arguments
from tests.images import make_folder


def demo(*arguments: str) -> int:
    return main(list(arguments))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration on a user's own tiny folder, by the README's line made smaller."""
    root = tmp_path_factory.mktemp("demo")
    images = make_folder(root / "images", per_class=20, channels=1)
    tiny = ["--image_size=32", "--labels_per_class=2", "--draws=2", "--pretrain_steps=4"]
    tiny += ["--finetune_steps=3", "--scratch_steps=5"]
    out = root / "out"
    line = readme_arguments("simclr-demo")
    assert demo(*line, f"--image_dir={images}", f"--output={out}", *tiny) == 0
    return out


@pytest.mark.slow
def test_the_page_holds_every_figure_and_number(finished: Path) -> None:
    page = (finished / "index.html").read_text()
    result = json.loads((finished / "result.json").read_text())
    assert page.count("data:image/png;base64,") == 5
    for name, (value, low, high) in result["test_accuracy"].items():
        assert 0 <= low <= value <= high <= 1
        assert name.rsplit(",", 1)[0] in page
        assert f"{value:.3f}" in page
    assert not re.search(r'(src|href)="https?:', page)


@pytest.mark.slow
def test_the_splits_are_apart_and_pretraining_sees_no_label(finished: Path) -> None:
    manifest = Manifest.load(finished / "split.csv")
    files = [set(manifest.split(name).files()) for name in ("train", "validation", "test")]
    assert [len(f) for f in files] == [36, 18, 6]
    assert len(set.union(*files)) == 60, "no image in two splits"
    settings = json.loads((finished / "pretrain" / "config.json").read_text())
    assert settings["model"]["lineareval_while_pretraining"] is False
    assert settings["data"]["train_split"] == "train"


@pytest.mark.slow
def test_the_gain_is_the_difference_of_the_table(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    accuracy = result["test_accuracy"]
    ours = accuracy["pretrained, fine-tuned, 2 labels a class"][0]
    scratch = accuracy["from scratch, 2 labels a class"][0]
    assert result["gain_over_scratch"][0] == pytest.approx(ours - scratch)
    longer = accuracy["from scratch, trained longer, 2 labels a class"][0]
    assert result["gain_over_longer_scratch"][0] == pytest.approx(ours - longer)
    images = np.array([accuracy[k][0] * 6 for k in accuracy if k.endswith("all labels a class")])
    np.testing.assert_allclose(images, images.round(), atol=1e-9)


@pytest.mark.slow
def test_other_settings_in_the_same_folder_are_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "index.html").read_bytes()
    assert demo(f"--output={finished}", "--draws=3") == 1
    assert "holds a demonstration with other settings" in capsys.readouterr().err
    assert (finished / "index.html").read_bytes() == before


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
