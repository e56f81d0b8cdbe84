import json
from pathlib import Path

import pytest

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.places import short_names
from simclr_tf.embedding.analyze import analyze_embedding, reanalyze
from simclr_tf.embedding.stored import StoredEmbedding, join_labels, open_stored, read_rows
from tests.simclr_tf.embedding.common import blobs, config, records, store

PATHS = ("a/one.png", "a/two.png", "b/one.png", "b/three.png")


@pytest.fixture
def stored(tmp_path: Path) -> StoredEmbedding:
    images = Manifest(tuple(Record(p, split="train") for p in PATHS), str(tmp_path / "images"))
    return store(tmp_path / "out", blobs(4), images)


def write(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return file


def test_labels_are_joined_by_path_end_of_path_absolute_path_or_name(
    stored: StoredEmbedding, tmp_path: Path
) -> None:
    for name, row in (
        ("a/one.png", 0),
        (f"{tmp_path}/images/b/one.png", 2),
        ("images/b/one.png", 2),
        ("two.png", 1),
        ("three.png", 3),
    ):
        joined = join_labels(stored, write(tmp_path, "path,phase", f"{name},2x2"))
        assert joined == {"phase": ["2x2" if i == row else "" for i in range(4)]}


def test_unknown_and_ambiguous_names_are_named(stored: StoredEmbedding, tmp_path: Path) -> None:
    file = write(tmp_path, "file,phase", "four.png,x", "one.png,y", "c/two.png,z", "two.png,w")
    with pytest.raises(UserError) as error:
        join_labels(stored, file)
    text = str(error.value)
    assert "unknown: four.png (line 2), c/two.png (line 4)" in text
    assert "ambiguous: one.png (line 3): more than one file is called so" in text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("title,phase", "two.png,x"), "needs a column .path."),
        (("path,split", "two.png,test"), "no column of labels"),
        (("path,phase", "two.png,x", "a/two.png,y"), "two labels in phase, x and y"),
    ],
)
def test_files_that_cannot_be_joined_are_refused(
    stored: StoredEmbedding, tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        join_labels(stored, write(tmp_path, *lines))
    with pytest.raises(UserError, match="not found"):
        join_labels(stored, tmp_path / "missing.csv")


def test_a_name_means_all_tiles_unless_a_column_says_which(tmp_path: Path) -> None:
    tiles = tuple(Record("core.png", split="train", tile=f"0,{y},8,8") for y in (0, 8))
    stored = store(tmp_path / "out", blobs(2), Manifest(tiles, str(tmp_path)))
    assert join_labels(stored, write(tmp_path, "path,rock", "core.png,chalk")) == {
        "rock": ["chalk", "chalk"]
    }
    one = write(tmp_path, "path,tile,rock", 'core.png,"0,8,8,8",chalk')
    assert join_labels(stored, one) == {"rock": ["", "chalk"]}


def test_pages_and_arrays_of_a_file_are_named_by_columns_or_as_pages_show_them(
    tmp_path: Path,
) -> None:
    images = Manifest(
        (
            *(Record("/d/a/s.npy", "x", reading=f"page={page};axes=NHW") for page in range(3)),
            *(Record("/d/b/s.h5", "y", reading=f"array={name}") for name in ("one", "two")),
            Record("/d/b/alone.tif", "y"),
        )
    )
    stored = store(tmp_path / "e", blobs(6), images)
    file = tmp_path / "labels.csv"
    file.write_text("path,page,array,kind\n/d/a/s.npy,2,,A\nb/s.h5,,two,B\nalone.tif,0,,C\n")
    assert join_labels(stored, file)["kind"] == ["", "", "A", "", "B", "C"]
    file.write_text("path,kind\na/s.npy 1,A\ns.h5 one,B\n")
    assert join_labels(stored, file)["kind"] == ["", "A", "", "B", "", ""]
    assert short_names(images) == [
        "a/s.npy 0", "a/s.npy 1", "a/s.npy 2", "b/s.h5 one", "b/s.h5 two", "b/alone.tif",
    ]  # fmt: skip
    file.write_text("path,kind\na/s.npy 7,A\n")
    with pytest.raises(UserError, match=r"unknown: a/s\.npy 7 \(line 2\)"):
        join_labels(stored, file)


def test_joined_labels_are_columns_that_stay_and_are_measured(tmp_path: Path) -> None:
    stored = store(
        tmp_path / "out", blobs(30), Manifest(records(30, ()), str(tmp_path)), shard_images=9
    )
    analyze_embedding(stored, config(suggest_labels=30), stored.folder)
    suggested = read_rows(stored.folder / "suggestions.csv")
    assert suggested["rank"] == [str(i) for i in range(1, 31)]
    number = {path: i for i, path in enumerate(stored.columns["path"])}
    lines = ["rank,path,expert"]
    for rank, path in zip(suggested["rank"][:20], suggested["path"], strict=False):
        lines.append(f"{rank},{path},{'xyz'[number[path] % 3]}")
    again = {"embedding": str(stored.folder), "suggest_labels": 5, "formats": ""}
    reanalyze(config(**again, join=str(write(tmp_path, *lines))))
    table = read_rows(stored.folder / "embedding.csv")
    known = set(suggested["path"][:20])
    assert table["expert"] == [
        "xyz"[i % 3] if path in known else "" for i, path in enumerate(table["path"])
    ]
    facts = json.loads((stored.folder / "embedding.json").read_text())
    assert facts["measures"]["expert"]["images"] == 20
    assert facts["measures"]["expert"]["scores"][-1]["accuracy"]["value"] > 0.9
    assert facts["clusters"]["kmeans"]["clusters"] == 3, "as many as the expert's classes"
    left = set(read_rows(stored.folder / "suggestions.csv")["path"])
    assert not left & known, "what is still without a label comes first"

    more = write(tmp_path, "path,expert,surface", f"{suggested['path'][25]},w,rough")
    reanalyze(config(**again, join=str(more)))
    stored = open_stored(stored.folder)
    assert stored.expert_columns == ("expert", "surface")
    assert sum(map(bool, stored.columns["expert"])) == 21, "earlier labels stay"
    assert sum(map(bool, stored.columns["surface"])) == 1


def test_a_wrong_file_changes_nothing(tmp_path: Path) -> None:
    stored = store(tmp_path / "out", blobs(9), Manifest(records(9), str(tmp_path)))
    analyze_embedding(stored, config(), stored.folder)
    before = {p.name: p.read_bytes() for p in stored.folder.iterdir()}
    with pytest.raises(UserError, match=r"unknown: nowhere\.png"):
        reanalyze(
            config(embedding=str(stored.folder),
                   join=str(write(tmp_path, "path,phase", "nowhere.png,x")))
        )  # fmt: skip
    assert {p.name: p.read_bytes() for p in stored.folder.iterdir()} == before
