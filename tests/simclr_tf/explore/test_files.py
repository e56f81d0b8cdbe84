"""Atlas, projector files, payload, and the data that are refused."""

import base64
import dataclasses
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from simclr_tf.explore import projections
from simclr_tf.explore.data import ExploreData
from simclr_tf.explore.page import payload, script_json, write_explore_page
from simclr_tf.explore.projections import project, write_projector
from simclr_tf.explore.thumbnails import make_atlas
from tests.simclr_tf.explore.common import NASTY, jpeg, make_data, pixels


def tile_of(picture: bytes, place: int, tile: int, across: int) -> np.ndarray:
    row, column = divmod(place, across)
    sheet = pixels(picture)
    return sheet[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]


def test_tiles_show_the_thumbnails_in_their_order() -> None:
    data = make_data(21)
    atlas = make_atlas(data.thumbnails, side=200)
    assert (atlas.tile, atlas.across, atlas.per_picture, len(atlas.pictures)) == (64, 3, 9, 3)
    for index in range(21):
        picture, place = divmod(index, atlas.per_picture)
        shown = tile_of(atlas.pictures[picture], place, atlas.tile, atlas.across)
        differences = [np.abs(shown - pixels(other)).mean() for other in data.thumbnails]
        assert int(np.argmin(differences)) == index
        assert differences[index] < 10


def test_thumbnails_of_any_shape_are_centerd_and_large_ones_shrunk() -> None:
    wide = jpeg(np.zeros((20, 60, 3), np.uint8))
    large = jpeg(np.full((300, 150), 100, np.uint8))
    atlas = make_atlas([wide, large])
    assert atlas.tile == 96
    first, second = (tile_of(atlas.pictures[0], place, 96, atlas.across) for place in (0, 1))
    assert first[40:56, 22:74].max() < 20
    assert first[:34].min() > 235
    assert np.abs(second[:, 30:66] - 100).max() < 20
    assert second[:, :20].min() > 235


def test_gray_thumbnails_make_a_gray_picture() -> None:
    atlas = make_atlas([jpeg(np.full((64, 64), 90, np.uint8))] * 2)
    assert Image.open(io.BytesIO(atlas.pictures[0])).mode == "L"


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    from google.protobuf import text_format
    from tensorboard.plugins.projector import ProjectorConfig

    data = make_data(20)
    write_projector(tmp_path, data)
    text = (tmp_path / projections.CONFIG).read_text(encoding="utf-8")
    (embedding,) = text_format.Parse(text, ProjectorConfig()).embeddings
    features = np.loadtxt(tmp_path / embedding.tensor_path, delimiter="\t")
    np.testing.assert_allclose(features, data.features, rtol=1e-5)
    lines = (tmp_path / embedding.metadata_path).read_text(encoding="utf-8").split("\n")
    assert lines[0].split("\t") == ["name", *data.columns]
    assert lines[21:] == [""]
    assert [line.split("\t")[0] for line in lines[1:21]] == data.names
    assert [line.split("\t")[1] for line in lines[1:21]] == data.columns["label"]
    sprite = (tmp_path / embedding.sprite.image_path).read_bytes()
    width, height = embedding.sprite.single_image_dim
    assert pixels(sprite).shape == (5 * height, 5 * width, 3)
    shown = tile_of(sprite, 7, width, 5)
    assert np.abs(shown - pixels(data.thumbnails[7])).mean() < 10


def test_metadata_of_names_alone_has_no_headers(tmp_path: Path) -> None:
    data = dataclasses.replace(make_data(3), columns={}, names=["a\tb", "c\nd", "e"])
    write_projector(tmp_path, data)
    assert (tmp_path / projections.METADATA).read_text(encoding="utf-8") == "a b\nc d\ne\n"


def test_very_many_numbers_are_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projections, "_MOST_NUMBERS", 100)
    monkeypatch.setattr(projections, "_PROJECTOR_DIMENSIONS", 5)
    write_projector(tmp_path, make_data(20))
    written = np.loadtxt(tmp_path / projections.TENSORS, delimiter="\t")
    assert written.shape == (20, 5)
    centerd = make_data(20).features - make_data(20).features.mean(axis=0)
    variances = np.linalg.svd(centerd, compute_uv=False)[:5] ** 2
    np.testing.assert_allclose((written**2).sum(axis=0), variances, rtol=1e-3)


def test_columns_are_values_and_positions_or_numbers() -> None:
    data = make_data(60)
    content = payload(data, [project(data.features, "pca")], np.zeros((60, 7)), np.zeros((60, 7)))
    columns = {column["name"]: column for column in content["columns"]}
    assert list(columns) == list(data.columns)
    for name, column in columns.items():
        codes = np.frombuffer(base64.b64decode(column["codes"]), "<i4")
        back = ["" if code < 0 else column["values"][code] for code in codes]
        assert back == data.columns[name]
    assert columns["cluster"]["values"] == [str(number) for number in range(25)]
    assert columns["cluster"]["numbers"] is None
    assert columns["depth, m"]["numbers"] == sorted(map(float, data.columns["depth, m"]))


def test_no_text_ends_the_script() -> None:
    text = script_json({"names": list(NASTY)})
    assert not re.search("[<>&]", text)
    assert json.loads(text) == {"names": list(NASTY)}


def test_the_same_data_give_the_same_page(tmp_path: Path) -> None:
    pages = [write_explore_page(tmp_path / name, make_data(12), ("pca",)) for name in "ab"]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["explore.html", "projector"]


def test_lengths_and_numbers_are_checked() -> None:
    data = make_data(6)
    with pytest.raises(ValueError, match="6 names, but column label: 5"):
        dataclasses.replace(data, columns={"label": ["x"] * 5})
    with pytest.raises(ValueError, match="6 names, but thumbnails: 5"):
        dataclasses.replace(data, thumbnails=data.thumbnails[:5])
    with pytest.raises(ValueError, match="float32"):
        dataclasses.replace(data, features=data.features.astype(np.float64))
    with pytest.raises(UserError, match="no images"):
        ExploreData("x", [], [], np.zeros((0, 3), np.float32), {}, {})
    features = data.features.copy()
    features[3, 1] = np.nan
    with pytest.raises(UserError, match=r"Größe 試料 µ\.png are not finite"):
        dataclasses.replace(data, features=features)


@pytest.mark.slow
def test_the_explorer_needs_no_tensorflow() -> None:
    program = (
        "import simclr_tf.explore.page, simclr_tf.explore.compare, sys;"
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
