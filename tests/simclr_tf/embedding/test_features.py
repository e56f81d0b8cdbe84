"""Features from image files to the files of an embedding, against plain loops."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.scan import scan_folder
from simclr_tf.checkpoints.load import load_encoder, load_model
from simclr_tf.checkpoints.preprocessing import Preprocessing
from simclr_tf.checkpoints.write import export_keras
from simclr_tf.embedding import compute
from simclr_tf.embedding import compute as network_module
from simclr_tf.embedding.compute import FeatureMaker, embed, open_network
from simclr_tf.embedding.settings import FeatureSettings
from simclr_tf.embedding.stored import open_stored, read_rows
from simclr_tf.evaluation.features import Embeddings
from tests.finetune.runs import write_encoder
from tests.images import make_folder
from tests.simclr_tf.embedding.common import config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder.keras")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 images of 32 x 32 pixels, which the encoder takes as they are."""
    return make_folder(tmp_path_factory.mktemp("images"), per_class=7)


def pixels(folder: Path) -> np.ndarray:
    files = scan_folder(folder).files()
    return np.stack([np.asarray(Image.open(file), np.float32) / 255 for file in files])


network = cache(open_network)


@cache
def maker(settings: FeatureSettings) -> FeatureMaker:
    return FeatureMaker(network(settings), settings)


def shared(own: compute.OpenedEncoder, settings: FeatureSettings) -> FeatureMaker:
    """The one of an encoder; floors have one of their own."""
    return maker(settings) if isinstance(own.model, keras.Model) else FeatureMaker(own, settings)


@pytest.fixture(autouse=True, scope="module")
def _opened_once() -> Iterator[None]:
    """The same settings share a network and its graph, whose tracing takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, "open_network", network)
        patch.setattr(compute, "FeatureMaker", shared)
        yield
    network.cache_clear()
    maker.cache_clear()


def featurise(encoder: Path, images: Manifest, **values: object) -> np.ndarray:
    found, bad = maker(config(encoder=str(encoder), **values).features).features(images)
    assert not bad
    return found


def test_features_are_what_the_encoder_predicts(encoder: Path, folder: Path) -> None:
    found = featurise(encoder, scan_folder(folder))
    expected = load_encoder(encoder).predict(pixels(folder), batch_size=8, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("endpoint", ["block_group2", "proj_head_output", "initial_conv"])
def test_any_layer_can_be_taken_and_maps_are_averaged(
    encoder: Path, folder: Path, endpoint: str
) -> None:
    found = featurise(encoder, scan_folder(folder), endpoint=endpoint)
    layer = load_model(str(encoder))(pixels(folder), training=False)[endpoint].numpy()
    expected = layer if layer.ndim == 2 else np.array([m.reshape(-1, m.shape[-1]).mean(axis=0)
                                                       for m in layer])  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_normalized_features_have_length_one_and_half_precision_rounds(
    encoder: Path, folder: Path
) -> None:
    plain = featurise(encoder, scan_folder(folder))
    found = featurise(encoder, scan_folder(folder), normalize=True, float16=True)
    assert found.dtype == np.float16
    expected = plain / np.sqrt((plain**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_several_crops_are_averaged(encoder: Path, tmp_path: Path) -> None:
    """Crops of 0.6 of the side: of 53 pixels the 32 that the network takes."""
    folder = make_folder(tmp_path / "large", per_class=2, size=53)
    found = featurise(encoder, scan_folder(folder), eval_crops=2)
    model, images = load_encoder(encoder), pixels(folder)
    corners = [images[:, y : y + 32, x : x + 32] for y in (0, 21) for x in (0, 21)]
    expected = np.mean([model.predict(part, verbose=0) for part in corners], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_images_of_16_bits_do_not_change_those_beside_them(encoder: Path, folder: Path) -> None:
    images = scan_folder(folder)
    alone = featurise(encoder, images)
    file = folder.parent / "deep.png"
    deep = np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)
    Image.fromarray(deep).save(file)
    mixed = images.subset([*images.records[:3], Record(str(file)), *images.records[3:]])
    found = featurise(encoder, mixed)
    np.testing.assert_array_equal(np.delete(found, 3, axis=0), alone)
    assert np.abs(found[3]).max() > 0


def test_a_pass_that_cannot_fit_is_refused_before_the_first(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_module, "memory_here", lambda devices: 2**29)
    wanted = config(encoder=str(encoder), eval_batch_size=4096).features
    with pytest.raises(UserError, match=r"embedding is estimated to take .* --nomemory_check"):
        FeatureMaker(network(wanted), wanted)
    FeatureMaker(network(wanted), replace(wanted, memory_check=False))


def test_an_unknown_layer_is_refused_with_those_that_there_are(encoder: Path) -> None:
    with pytest.raises(UserError, match=r"--endpoint=pool5: the network has .*final_avg_pool"):
        open_network(config(encoder=str(encoder), endpoint="pool5").features)


@pytest.fixture(scope="module")
def made(encoder: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole embedding, of shards that do not divide the number of images."""
    output = tmp_path_factory.mktemp("made") / "out"
    embed(config(encoder=str(encoder), image_dir=str(folder), output=str(output), shard_images=8))
    return output


def test_all_files_hold_the_same_features_names_labels_and_splits(
    made: Path, encoder: Path, folder: Path
) -> None:
    images = scan_folder(folder)
    features = np.load(made / "features.npy", mmap_mode="r")
    assert isinstance(features, np.memmap)
    np.testing.assert_allclose(features, featurise(encoder, images), rtol=1e-5, atol=1e-6)
    rows, table = read_rows(made / "embedding.csv"), pq.read_table(made / "embedding.parquet")
    archive = Embeddings.load(made / "embedding.npz")
    assert rows["path"] == [record.path for record in images.records]
    assert rows["label"] == [record.label for record in images.records]
    assert sorted(set(rows["split"])) == ["test", "train", "validation"]
    for name, texts in rows.items():
        column = table[name].to_pylist()
        assert column == ([np.float32(t) for t in texts] if name == "outlier" else texts)
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), features)
    np.testing.assert_array_equal(archive.features, features)
    np.testing.assert_array_equal(archive.labels, images.label_indices(images.class_names))
    with np.load(made / "embedding.npz") as more:
        assert more["paths"].tolist() == rows["path"]
        assert more["splits"].tolist() == rows["split"]
        assert more["class_names"].tolist() == list(images.class_names)
    stored = open_stored(made)
    assert stored.images.files() == images.files()
    assert stored.facts["images"] == 21


def test_workers_come_to_what_one_process_comes_to(
    made: Path, encoder: Path, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    said = [
        embed(config(encoder=str(encoder), image_dir=str(folder), output=str(output),
                     shard_images=8, worker=worker, num_workers=2))
        for worker in (1, 0, 1)
    ]  # fmt: skip
    assert said[0] == "2 of 3 shards are still to come from other workers"
    assert said[2] == f"{output} is complete"
    assert sorted(p.name for p in output.iterdir()) == sorted(p.name for p in made.iterdir())
    for file in made.iterdir():
        assert (output / file.name).read_bytes() == file.read_bytes(), file.name
    assert not (tmp_path / ".out.partial").exists()
    others = {"shard_images": 8, "num_workers": 2, "neighbours": 3}
    with pytest.raises(UserError, match="in another way"):
        embed(config(encoder=str(encoder), image_dir=str(folder), output=str(output), **others))


def test_an_embedding_is_not_overwritten_unless_told_so(
    made: Path, encoder: Path, folder: Path, tmp_path: Path
) -> None:
    own = tmp_path / "mine"
    own.mkdir()
    (own / "notes.txt").write_text("keep")
    values = {"encoder": str(encoder), "image_dir": str(folder), "shard_images": 8}
    with pytest.raises(UserError, match="not empty"):
        embed(config(**values, output=str(own), overwrite=True))
    before = (made / "features.npy").stat().st_mtime_ns
    embed(config(**values, output=str(made)))  # the same: it is complete
    assert (made / "features.npy").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="another embedding"):
        embed(config(**values, output=str(made), normalize=True))
    embed(config(**values, output=str(own / "new")))
    (own / "new" / "notes.txt").write_text("keep")
    embed(config(**values, output=str(own / "new"), normalize=True, overwrite=True, formats=""))
    lengths = np.linalg.norm(np.load(own / "new" / "features.npy"), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    assert (own / "new" / "notes.txt").read_text() == "keep"
    assert not (own / "new" / "embedding.npz").exists(), "it is not of these features"


def test_an_undecodable_image_is_named_or_left_out(
    encoder: Path, folder: Path, tmp_path: Path
) -> None:
    copies = tmp_path / "images"
    make_folder(copies, per_class=7)
    damaged = copies / "dots" / "dots_003.png"
    content = bytearray(damaged.read_bytes())
    content[60:90] = bytes(30)
    damaged.write_bytes(content)
    values = {"encoder": str(encoder), "image_dir": str(copies), "shard_images": 8}
    with pytest.raises(UserError, match=r"dots_003\.png cannot be read: .*--skip_unreadable"):
        embed(config(**values, output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
    embed(config(**values, output=str(tmp_path / "out"), skip_unreadable=True))
    stored = open_stored(tmp_path / "out")
    assert len(stored) == 20
    assert "dots/dots_003.png" not in stored.columns["path"]
    listed = read_rows(tmp_path / "out" / "unreadable.csv")
    assert listed["path"] == ["dots/dots_003.png"]


def test_images_are_read_as_the_encoders_record_says(
    encoder: Path, folder: Path, tmp_path: Path
) -> None:
    model = load_encoder(encoder)
    record = Preprocessing(32, 3).record()
    model.preprocessing = {**record, "reading": {"intensity": "sqrt"}}
    export_keras(model, tmp_path / "bright.keras")
    values = {"image_dir": str(folder), "formats": "", "encoder": str(tmp_path / "bright.keras")}
    embed(config(**values, output=str(tmp_path / "recorded")))
    stored = open_stored(tmp_path / "recorded")
    assert {r.reading for r in stored.images.records} == {"exif=ignore;intensity=sqrt(0,100)"}
    embed(config(**values, output=str(tmp_path / "stated"), intensity="none"), {"intensity"})
    plain = np.load(tmp_path / "stated" / "features.npy")
    images = scan_folder(folder)
    np.testing.assert_allclose(plain, featurise(encoder, images), rtol=1e-5, atol=1e-6)
    bright = images.subset(replace(r, reading="intensity=sqrt(0,100)") for r in images.records)
    np.testing.assert_allclose(stored.features[:], featurise(encoder, bright), rtol=1e-4, atol=1e-5)
    assert np.abs(stored.features[:] - plain).max() > 1e-3
