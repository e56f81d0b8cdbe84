"""What the pages are given; the pages themselves are another package's."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from simclr_tf.embedding import analyze, compare
from simclr_tf.embedding.analyze import analyze_embedding, shown_rows
from simclr_tf.embedding.compare import compare_embeddings
from simclr_tf.embedding.stored import StoredEmbedding, open_stored
from simclr_tf.explore.data import ExploreData
from tests.simclr_tf.embedding.common import blobs, config, store


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the writers of pages were called with."""
    seen: list[Any] = []

    def write_page(folder: Path, data: ExploreData, methods: Sequence[str], seed: int) -> Path:
        seen.append((data, tuple(methods), seed))
        (folder / "explore.html").write_text(data.title)
        return folder / "explore.html"

    def write_runs(folder: Path, runs: Sequence[ExploreData], pinned: Sequence[str]) -> Path:
        seen.append((list(runs), list(pinned)))
        (folder / "comparison.html").write_text("page")
        return folder / "comparison.html"

    monkeypatch.setattr(analyze, "write_explore_page", write_page)
    monkeypatch.setattr(compare, "write_comparison", write_runs)
    return seen


def images(tmp_path: Path, n: int) -> Manifest:
    """Grey images, image i of level 5 i, a bright corner in each."""
    folder = tmp_path / "images"
    folder.mkdir(exist_ok=True)
    for i in range(n):
        level = np.full((200, 100), 5 * i, np.uint8)
        level[:20, :20] = 255
        Image.fromarray(level).save(folder / f"{i}.png")
    rows = tuple(Record(f"{i}.png", label="ab"[i % 2], split="train") for i in range(n))
    return Manifest(rows, str(folder))


def test_the_page_gets_names_thumbnails_features_and_columns(
    calls: list[Any], tmp_path: Path
) -> None:
    source = {"source": "runs/run/encoder.keras"}
    stored = store(tmp_path / "out", blobs(10, 2), images(tmp_path, 10), encoder=source)
    analyze_embedding(stored, config(explore=True, projections="pca,random", seed=3), stored.folder)
    data, methods, seed = calls[0]
    assert (methods, seed) == (("pca", "random"), 3)
    assert data.title == "run, final_avg_pool"
    assert data.names == [f"{i}.png" for i in range(10)]
    np.testing.assert_array_equal(data.features, blobs(10, 2))
    assert data.features.dtype == np.float32
    assert list(data.columns) == ["label", "split", "kmeans", "hdbscan"]
    assert data.columns["label"] == list("ab" * 5)
    assert all(isinstance(value, str) for value in data.facts.values())
    for i, jpeg in enumerate(data.thumbnails):
        picture = Image.open(io.BytesIO(jpeg))
        assert max(picture.size) == 80
        assert abs(int(np.median(np.asarray(picture))) - 5 * i) < 5
    assert (stored.folder / "explore.html").is_file()


def test_large_sets_are_shown_by_a_stratified_sample(calls: list[Any], tmp_path: Path) -> None:
    stored = store(tmp_path / "out", blobs(12, 2), images(tmp_path, 12))
    analyze_embedding(
        stored, config(explore=True, explore_limit=6, projections="pca"), stored.folder
    )
    data = calls[0][0]
    assert sorted(data.columns["label"]) == list("aaabbb")
    assert "shows 6 of 12 images" in " ".join(open_stored(stored.folder).facts["remarks"])


def test_every_stratum_has_its_share_of_a_sample() -> None:
    strata = ["a"] * 600 + ["b"] * 300 + ["c"] * 90 + ["d"] * 10
    rows = shown_rows(strata, 100, seed=0)
    assert (np.diff(rows) > 0).all()
    counts = [[strata[row] for row in rows].count(name) for name in "abcd"]
    assert counts == [60, 30, 9, 1]
    assert rows.tolist() == shown_rows(strata, 100, seed=0).tolist()
    assert rows.tolist() != shown_rows(strata, 100, seed=1).tolist()
    assert shown_rows(["x"] * 5, 5, 0).tolist() == [0, 1, 2, 3, 4]


def test_an_image_that_is_gone_is_shown_gray(
    calls: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = store(tmp_path / "out", blobs(4, 2), images(tmp_path, 4))
    (tmp_path / "images" / "2.png").unlink()
    analyze_embedding(stored, config(explore=True, projections="pca"), stored.folder)
    assert Image.open(io.BytesIO(calls[0][0].thumbnails[2])).getpixel((3, 3)) == 225
    assert "1 of 4 images cannot be read" in caplog.text


@pytest.fixture
def two(calls: list[Any], tmp_path: Path) -> tuple[StoredEmbedding, StoredEmbedding]:
    """Two embeddings; the second lacks image 0 and has the others the other way round."""
    every = images(tmp_path, 12)
    first = store(tmp_path / "one", blobs(12, 2), every)
    rest = Manifest(every.records[:0:-1], every.root)
    second = store(tmp_path / "two", blobs(12, 2)[:0:-1] * 2, rest)
    for stored in (first, second):
        analyze_embedding(stored, config(), stored.folder)
    return first, second


def test_a_comparison_has_the_same_images_in_the_same_order(
    calls: list[Any], two: tuple[StoredEmbedding, StoredEmbedding], tmp_path: Path
) -> None:
    folders = ",".join(str(stored.folder) for stored in two)
    page = compare_embeddings(
        config(compare=folders, pinned="7.png, 3.png", output=str(tmp_path / "side"))
    )
    assert Path(page).is_file()
    runs, pinned = calls[-1]
    assert pinned == ["7.png", "3.png"]
    assert [run.title for run in runs] == ["one", "two"]
    for run, factor in zip(runs, (1, 2), strict=True):
        assert run.names == [f"{i}.png" for i in range(1, 12)]
        np.testing.assert_array_equal(run.features, blobs(12, 2)[1:] * factor)
        assert len(run.columns["kmeans"]) == 11


def test_images_in_another_folder_are_found_by_their_inner_path(
    calls: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = []
    for place, factor in (("here", 1), ("there", 2)):
        (tmp_path / place).mkdir()
        every = images(tmp_path / place, 6)
        stored = store(tmp_path / place / "out", blobs(6, 2) * factor, every)
        analyze_embedding(stored, config(), stored.folder)
        folders.append(str(stored.folder))
    compare_embeddings(config(compare=",".join(folders), output=str(tmp_path / "side")))
    runs, _ = calls[-1]
    for run, factor in zip(runs, (1, 2), strict=True):
        assert run.names == [f"{i}.png" for i in range(6)]
        np.testing.assert_array_equal(run.features, blobs(6, 2) * factor)
    assert "taken for the same" in caplog.text


def test_pinned_images_are_always_shown(
    calls: list[Any], two: tuple[StoredEmbedding, StoredEmbedding], tmp_path: Path
) -> None:
    folders = ",".join(str(stored.folder) for stored in two)
    compare_embeddings(
        config(compare=folders, output=str(tmp_path / "a"), explore_limit=2, pinned="5.png,9.png")
    )
    runs, pinned = calls[-1]
    assert pinned == ["5.png", "9.png"]
    assert set(pinned) <= set(runs[0].names)
    assert len(runs[0].names) <= 4
    for name in ("0.png", "nothing.png"):
        with pytest.raises(UserError, match=name):
            compare_embeddings(config(compare=folders, pinned=name, output=str(tmp_path / "b")))
    assert not (tmp_path / "b").exists()


def test_the_page_itself_is_written(tmp_path: Path) -> None:
    stored = store(tmp_path / "out", blobs(12, 2), images(tmp_path, 12))
    analyze_embedding(stored, config(explore=True, projections="pca"), stored.folder)
    page = (stored.folder / "explore.html").read_text(encoding="utf-8")
    assert all(f'"{i}.png"' in page for i in range(12))
