"""Image sets in Python: what a command would read, divided, checked, shown and written."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import simclr_tf as st
from data_prep.cli import check as check_command
from data_prep.cli import split as split_command
from data_prep.manifest.manifest import Manifest
from tests.images import make_folder, make_split_folder


def test_importing_it_takes_no_tensorflow_and_lists_what_there_is() -> None:
    program = (
        "import sys, time; began = time.process_time(); import simclr_tf as st;"
        "took = time.process_time() - began; names = dir(st);"
        "print({'tensorflow', 'keras', 'numpy'} & set(sys.modules), 'pretrain' in names, took)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    imported, listed, seconds = done.stdout.rsplit(maxsplit=2)
    assert (imported, listed) == ("set()", "True")
    assert float(seconds) < 0.2
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        _ = st.pretrian  # type: ignore[attr-defined]


def test_a_folder_is_opened_divided_and_written_as_the_command_does_it(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", 12, 24)
    images = st.images(folder)
    assert len(images) == sum(images.counts().values()) == len(images.paths)
    assert images.splits == ()
    divided = images.split({"train": 0.5, "test": 0.5}, seed=3, near_duplicates="ignore")
    file = divided.to_csv(tmp_path / "python.csv")
    code = split_command.main(
        [str(folder), f"{tmp_path}/command.csv", "--ratios=train:0.5,test:0.5", "--seed=3",
         "--near_duplicates=ignore"]
    )  # fmt: skip
    assert code == 0
    assert Manifest.load(file).records == Manifest.load(tmp_path / "command.csv").records
    again = st.images(file)
    assert again.labels == divided.labels
    assert Counter(r.split for r in again.manifest.records) == {
        name: len(divided.subset(name)) for name in ("train", "test")
    }


def test_what_is_impossible_is_said_in_pythons_words(tmp_path: Path) -> None:
    images = st.images(make_split_folder(tmp_path / "images", train=2, held_out=2, size=24))
    with pytest.raises(st.UserError, match=r"add up to 1, not 0\.9"):
        images.split({"train": 0.6, "test": 0.3}, resplit=True)
    with pytest.raises(
        st.UserError, match=r"leave ratios and folds out .* with within, .* resplit"
    ):
        images.split({"train": 0.6, "test": 0.4})
    with pytest.raises(st.UserError, match="unknown setting 'sed'; did you mean seed"):
        images.split({"train": 0.6, "test": 0.4}, sed=1)
    with pytest.raises(st.UserError, match="split='validatoin': there are"):
        images.subset("validatoin")
    with pytest.raises(st.UserError, match=r"no such folder|not found"):
        st.images(tmp_path / "nowhere")


def test_check_finds_a_copy_across_classes(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", 6, 24)
    first, second = sorted(p for p in folder.iterdir() if p.is_dir())[:2]
    copied = sorted(first.iterdir())[0]
    (second / "copy.png").write_bytes(copied.read_bytes())
    found = st.images(folder).check()
    assert found.worst() == "serious"
    assert any("cop" in finding.line() for finding in found.findings)
    assert not (tmp_path / "check").exists()


def test_check_writes_the_page_of_the_command(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", 6, 24)
    (folder / "notes.txt").write_text("no image")
    for _ in range(2):  # a cell of a notebook runs more than once
        st.images(folder).check(tmp_path / "python")
    check_command.main([str(folder), f"{tmp_path}/command", "--fail_on=never"])
    for file in ("check.json", "report.html"):
        ours, theirs = ((tmp_path / by / file).read_text() for by in ("python", "command"))
        assert ours == theirs
    assert "notes.txt" in (tmp_path / "python" / "check.json").read_text()


def test_an_image_is_read_as_training_sees_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = st.read_image(tmp_path / "a.png")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, pixels.astype(np.float32) / 255)
    deep = rng.integers(0, 65536, (3, 9, 7)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "b.tif", deep, photometric="minisblack", metadata=None)
    np.testing.assert_allclose(
        st.read_image(tmp_path / "b.tif", page="1")[:, :, 0], deep[1] / 65535, atol=1e-6
    )
    scaled = st.read_image(tmp_path / "b.tif", page="2", intensity="minmax")
    assert (scaled.min(), scaled.max()) == (0, 1)
    with pytest.raises(st.UserError, match="makes several images"):
        st.read_image(tmp_path / "b.tif", page="all")


def test_a_notebook_shows_counts_and_pictures(tmp_path: Path) -> None:
    images = st.images(make_folder(tmp_path / "a & b", 3, 24))
    shown = images._repr_html_()
    assert shown.count("<img ") == min(8, len(images))
    for name, number in images.counts().items():
        assert f"<td>{name}</td><td>{number}</td>" in shown
    assert "<script" not in shown
    figure = images.show(5)
    assert len([axes for axes in figure.axes if axes.images]) == 5


def test_records_as_a_data_frame(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    images = st.images(make_folder(tmp_path / "images", 3, 24))
    frame = images.to_pandas()
    assert list(frame.columns[:3]) == ["path", "label", "split"]
    assert frame["label"].tolist() == images.labels
