import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import scan_folder
from data_prep.manifest.splits import stratified_split
from data_prep.sources import streams
from data_prep.sources.source import Source
from data_prep.sources.streams import TFDSSource, TFRecordSource
from data_prep.sources.tfrecord_writer import write_shards
from tests.data_prep.image_files import pixels, write, write_class_folders, write_tiff

Seen = list[tuple[int, int, int]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set prepared by TFDS itself, 20 grey images of 28 x 28, without any network."""
    folder = tmp_path_factory.mktemp("tfds")
    builder = tfds.testing.DummyMnist(data_dir=str(folder))
    builder.download_and_prepare()
    return folder


@pytest.fixture
def split_manifest(tmp_path: Path) -> Manifest:
    write_class_folders(tmp_path / "images", {"a": 12, "b": 14}, channels=3)
    manifest = scan_folder(tmp_path / "images")
    return stratified_split(manifest, {"train": 0.77, "test": 0.23}, seed=0)


@pytest.fixture(params=["tfds", "shards", "shards, small buffer"])
def source(
    request: pytest.FixtureRequest,
    prepared: Path,
    split_manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Source:
    """20 images read from front to back, in several ways."""
    if request.param == "tfds":
        return TFDSSource("dummy_mnist", str(prepared))
    if "small" in request.param:
        monkeypatch.setattr(streams, "SHUFFLE_BYTES", 1)
        monkeypatch.setattr(streams, "_LEAST_BUFFER", 5)
    write_shards(split_manifest, tmp_path / "shards", 3)
    return TFRecordSource(tmp_path / "shards", "train")


def sequence(source: Source, steps: int | None = None, **options: Any) -> Seen:
    settings = {"seed": 0, "shuffle": True, "start": 0, "batch_size": 6, "shard": (0, 1)} | options
    elements = source.elements(**settings)
    if steps is not None:
        elements = elements.take(steps * settings["batch_size"] // settings["shard"][1])
    return [(int(e["epoch"]), int(e["index"]), int(e["label"])) for e in elements]


def test_every_epoch_holds_every_image_once_in_another_order(source: Source) -> None:
    seen = sequence(source, 20)
    epochs = [[index for epoch, index, _ in seen if epoch == number] for number in range(6)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert len({(index, label) for _, index, label in seen}) == 20


def test_order_depends_on_the_seed_alone(source: Source) -> None:
    before = sequence(source, 10)
    assert sequence(source, 10, seed=1) != before
    try:
        tf.random.set_seed(1234)
        assert sequence(source, 10) == before
    finally:
        tf.random.set_seed(0)


@pytest.mark.slow
def test_any_start_goes_on_exactly(source: Source) -> None:
    whole = sequence(source, 12)
    for step in (1, 3, 7, 11):
        assert sequence(source, 12 - step, start=6 * step) == whole[6 * step :]
    single = sequence(source, shuffle=False)
    assert sorted(index for _, index, _ in single) == list(range(20))
    assert sequence(source, shuffle=False, start=12) == single[12:]


@pytest.mark.parametrize("shuffle", [True, False])
def test_shards_make_up_the_global_batches(source: Source, shuffle: bool) -> None:
    steps = 6 if shuffle else None
    whole = sequence(source, steps, shuffle=shuffle)
    parts = [sequence(source, steps, shuffle=shuffle, shard=(k, 3)) for k in range(3)]
    merged = [
        element
        for step in range(math.ceil(len(whole) / 6))
        for part in parts
        for element in part[2 * step : 2 * step + 2]
    ]
    assert merged == whole
    assert sum(map(len, parts)) == len(whole)


def test_impossible_layouts_are_refused(source: Source) -> None:
    with pytest.raises(UserError, match="must be a multiple of the batch size"):
        sequence(source, 1, start=5)
    with pytest.raises(UserError, match="cannot be divided over 4 workers"):
        sequence(source, 1, shard=(0, 4))


def test_batches_are_the_same_whatever_the_parallelism(source: Source) -> None:
    def images(parallel: int) -> np.ndarray:
        elements = source.elements(seed=2, shuffle=True, start=6, batch_size=6)
        mapped = elements.map(source.decode, num_parallel_calls=parallel, deterministic=True)
        return np.stack([image.numpy() for image in mapped.take(24)])

    np.testing.assert_array_equal(images(1), images(5))


def test_shards_hold_the_files_byte_for_byte(split_manifest: Manifest, tmp_path: Path) -> None:
    facts = write_shards(split_manifest, tmp_path / "out", 2)
    assert {name: part.num_examples for name, part in facts.items()} == {"train": 20, "test": 6}
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [
        ".complete.json",
        "dataset.json",
        "test-00000-of-00002.tfrecord",
        "test-00001-of-00002.tfrecord",
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
    ]
    contents = {}
    for file in facts["train"].files:
        for serialized in tf.data.TFRecordDataset(str(tmp_path / "out" / file)):
            feature = tf.train.Example.FromString(serialized.numpy()).features.feature
            name = feature["image/filename"].bytes_list.value[0].decode()
            contents[name] = (
                feature["image/encoded"].bytes_list.value[0],
                feature["image/class/label"].int64_list.value[0],
                feature["image/class/text"].bytes_list.value[0].decode(),
            )
    train = split_manifest.split("train")
    expected = {
        record.path: (Path(file).read_bytes(), "ab".index(record.label), record.label)
        for record, file in zip(train.records, train.files(), strict=True)
    }
    assert contents == expected


def test_decoded_shards_equal_the_files(split_manifest: Manifest, tmp_path: Path) -> None:
    write_shards(split_manifest, tmp_path / "out", 1)
    source = TFRecordSource(tmp_path / "out", "test")
    assert (source.class_names, source.channels, source.image_dtype) == (("a", "b"), 3, tf.uint8)
    elements = source.elements(seed=0, shuffle=False, start=0, batch_size=1)
    images = elements.map(source.decode)
    assert images.element_spec.shape.as_list() == [None, None, 3]
    seeds = {image.numpy().tobytes() for image in images}
    # write_class_folders numbers the images of both classes on.
    known = {pixels(seed).tobytes() for seed in range(1, 27)}
    assert len(seeds & known) == 6


def test_shards_of_mixed_formats_and_depths(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (6, 9), dtype=np.uint16)
    write(tmp_path / "images" / "a.png", deep)
    write(tmp_path / "images" / "b.jpg", np.full((8, 8), 51, np.uint8))
    write_tiff(tmp_path / "images" / "c.tif", np.full((4, 5), 0.25, np.float32))
    write_shards(scan_folder(tmp_path / "images"), tmp_path / "out", 1)
    source = TFRecordSource(tmp_path / "out")
    assert (source.split, source.image_dtype, source.class_names) == ("all", tf.float32, ())
    elements = list(source.elements(seed=0, shuffle=False, start=0, batch_size=1))
    assert {int(element["label"]) for element in elements} == {-1}
    means = sorted(float(tf.reduce_mean(source.decode(element))) for element in elements)
    np.testing.assert_allclose(means, [0.2, 0.25, deep.mean() / 65535], rtol=1e-5)


def test_writing_never_overwrites_and_leaves_nothing_half_done(
    split_manifest: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="used is not empty"):
        write_shards(split_manifest, tmp_path / "used", 1)
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match="6 images of split test do not fill 7 shards"):
        write_shards(split_manifest, tmp_path / "new", 7)
    Path(split_manifest.files()[3]).write_text("broken")
    with pytest.raises(UserError, match="cannot be read"):
        write_shards(split_manifest, tmp_path / "new", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "used"]


def test_an_empty_folder_may_be_written_to(split_manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    write_shards(split_manifest, tmp_path / "new", 1)
    assert TFRecordSource(tmp_path / "new", "train").num_examples == 20


def test_bad_shard_folders_are_refused(split_manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image shards in .*: dataset\.json is missing"):
        TFRecordSource(tmp_path, "train")
    write_shards(split_manifest, tmp_path / "out", 2)
    with pytest.raises(UserError, match=r"no split 'dev' \(its splits: train, test\)"):
        TFRecordSource(tmp_path / "out", "dev")
    with pytest.raises(UserError, match=r"has several splits \(train, test\)"):
        TFRecordSource(tmp_path / "out")
    (tmp_path / "out" / "train-00001-of-00002.tfrecord").unlink()
    with pytest.raises(
        UserError, match=r"damaged in .*: train-00001-of-00002.tfrecord \(missing\)"
    ):
        TFRecordSource(tmp_path / "out", "train")
    facts = tmp_path / "out" / "dataset.json"
    facts.write_text(json.dumps({"format": "other"}))
    with pytest.raises(UserError, match="is of another format"):
        TFRecordSource(tmp_path / "out", "train")
    facts.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        TFRecordSource(tmp_path / "out", "train")


def test_diagnose_names_the_record(split_manifest: Manifest, tmp_path: Path) -> None:
    write_shards(split_manifest, tmp_path / "out", 1)
    source = TFRecordSource(tmp_path / "out", "test")
    assert source.diagnose() is None
    file = Path(split_manifest.split("test").files()[2])
    data = bytearray(file.read_bytes())
    data[60:90] = bytes(30)
    file.write_bytes(data)
    write_shards(split_manifest, tmp_path / "bad", 1)
    error = TFRecordSource(tmp_path / "bad", "test").diagnose()
    assert isinstance(error, UserError)
    assert "of split test cannot be decoded: Invalid PNG data" in str(error)


def test_tfds_facts(prepared: Path) -> None:
    source = TFDSSource("dummy_mnist", str(prepared), "test")
    assert (source.num_examples, source.channels, source.image_dtype) == (20, 1, tf.uint8)
    assert source.class_names == tuple("0123456789")
    element = next(iter(source.elements(seed=0, shuffle=False, start=0, batch_size=1)))
    assert source.decode(element).shape == (28, 28, 1)
    color = TFDSSource("dummy_mnist", str(prepared), "test", channels=3)
    assert color.decode(element).shape == (28, 28, 3)
    assert TFDSSource("dummy_mnist", str(prepared), "train[:7]").num_examples == 7
    identities = {
        TFDSSource("dummy_mnist", str(prepared), split).identity
        for split in ("train", "test", "train[:7]")
    }
    assert len(identities) == 3


def test_tfds_random_labels(prepared: Path) -> None:
    source = TFDSSource("dummy_mnist", str(prepared), labels="random")
    drawn = sequence(source, 4)
    by_index = {index: label for _, index, label in drawn}
    assert all(by_index[index] == label for _, index, label in drawn)
    assert len(set(by_index.values())) > 3
    assert sequence(source, 4, seed=1, shuffle=False) != sequence(source, 4, shuffle=False)


@pytest.mark.parametrize("name", ["dummy_mnist", "no_such_set", "space:name/config"])
def test_tfds_never_downloads_unasked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("must not look beyond the prepared files")

    monkeypatch.setattr(tfds, "builder", refuse)
    with pytest.raises(
        UserError, match=f"--dataset={name}: is not prepared in {tmp_path}.*--download"
    ):
        TFDSSource(name, str(tmp_path))
    assert not any(tmp_path.iterdir())


def test_tfds_failing_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(tfds.testing.DummyMnist):
        def _split_generators(self, dl_manager: Any) -> None:
            raise ConnectionError("no route to host\nmore")

    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: Unreachable(data_dir=data_dir))
    with pytest.raises(UserError, match=r"could not be prepared: no route to host$"):
        TFDSSource("unreachable", str(tmp_path), download=True)


def test_tfds_bad_names_and_splits(prepared: Path) -> None:
    with pytest.raises(UserError, match=r"has no split 'dev' \(its splits: train, test\)"):
        TFDSSource("dummy_mnist", str(prepared), "dev")
    with pytest.raises(UserError, match="data set 'a b!'") as caught:
        TFDSSource("a b!", str(prepared))
    assert "\n" not in str(caught.value)


def test_tfds_prepares_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # TFDS keeps its dummy set out of the names that it knows.
    monkeypatch.setattr(
        tfds, "builder", lambda name, data_dir: tfds.testing.DummyMnist(data_dir=data_dir)
    )
    source = TFDSSource("dummy_mnist", str(tmp_path), download=True)
    assert source.num_examples == 20
    assert TFDSSource("dummy_mnist", str(tmp_path)).identity == source.identity
