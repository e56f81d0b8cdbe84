"""What is read of images and maps, and the order in which training sees them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from finetune.depth.pairs import (
    DepthSet,
    case_of,
    depth_range,
    open_data,
    open_manifest,
    refuse_leaks,
    unique_targets,
)
from finetune.depth.settings import RegressionSettings
from finetune.depth.train import example_maker
from simclr_tf.training.batches import training_batches
from simclr_tf.training.distribution import Devices
from tests.finetune.depth.sets import SIZE, config, make_real, make_set

SPLITS = ("train", "train", "train", "validation")


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_depth_is_in_physical_units_whatever_the_file(bits: int, tmp_path: Path) -> None:
    pairs = DepthSet(make_set(tmp_path, 3, bits=bits))
    depth = pairs.targets(pairs.records)
    assert depth.shape == (6, *SIZE, 1)
    assert depth.dtype == np.float32
    tolerance = {8: 0.51, 16: 0.0051, 32: 1e-4}[bits]
    assert depth[0, 0, 0, 0] == pytest.approx(116, abs=tolerance)
    np.testing.assert_array_equal(depth[0], depth[1])
    images = pairs.images(pairs.records)
    assert images.shape == depth.shape
    # Images are noisy by 0.02.
    np.testing.assert_allclose(100 + 80 * images, depth, atol=8)
    assert pairs.cases == ("c1", "c2")
    assert depth_range(pairs.manifest) == (depth.min(), depth.max())


def test_images_are_read_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    pairs = DepthSet(make_set(tmp_path, 3))
    whole = pairs.images(pairs.records)
    np.testing.assert_array_equal(pairs.images(pairs.records[::-1]), whole[::-1])
    gray = np.asarray(Image.open(tmp_path / pairs.records[4].path), np.float32) / 255
    np.testing.assert_array_equal(whole[4, ..., 0], gray)


def test_what_is_wrong_with_pairs_is_said_by_name(tmp_path: Path) -> None:
    manifest = make_set(tmp_path, 3)

    def targets(**changes: str) -> None:
        first = replace(manifest.records[0], **changes)
        DepthSet(manifest.subset([manifest.records[2], first])).targets(
            [manifest.records[2], first]
        )

    with pytest.raises(UserError, match=r"1 of 2 images have no target: sem/c1/m00_0.png"):
        targets(target="")
    with pytest.raises(UserError, match=r"m00_0.png -> .*gone.png"):
        targets(target="maps/gone.png")
    np.save(tmp_path / "maps" / "nan.npy", np.full(SIZE, np.nan, np.float32))
    with pytest.raises(UserError, match=r"nan.npy: holds depths that are not finite"):
        targets(target="maps/nan.npy")
    np.save(tmp_path / "maps" / "large.npy", np.zeros((20, 8), np.float32))
    with pytest.raises(UserError, match=r"large.npy has 20x8 pixels.*has 12x8"):
        targets(target="maps/large.npy")
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "maps" / "colour.png")
    with pytest.raises(UserError, match=r"colour.png: has 3 channels"):
        targets(target="maps/colour.png")


def test_tiles_of_a_picture_have_those_of_its_map(tmp_path: Path) -> None:
    manifest = make_set(tmp_path, 2)
    record = manifest.records[0]
    tiles = [replace(record, tile="0,0,4,4"), replace(record, tile="2,5,4,4")]
    pairs = DepthSet(manifest.subset(tiles))
    whole = DepthSet(manifest).targets([record])
    np.testing.assert_array_equal(pairs.targets(tiles)[1], whole[0, 5:9, 2:6])
    maps, rows = unique_targets(pairs.manifest)
    assert (len(maps), rows.tolist()) == (2, [0, 1])


def test_a_map_is_kept_once_for_all_of_its_images(tmp_path: Path) -> None:
    maps, rows = unique_targets(make_set(tmp_path, 4))
    assert len(maps) == 4
    assert rows.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_case_is_the_manifests_or_the_class_folder() -> None:
    assert case_of(Record("a.png", "folder", case="c")) == "c"
    assert case_of(Record("a.png", "folder")) == "folder"


def test_splits_that_share_a_map_are_refused_and_made_ones_do_not(tmp_path: Path) -> None:
    manifest = make_set(tmp_path, 12)
    torn = manifest.subset(
        replace(r, split="train" if i % 2 else "validation", group="")
        for i, r in enumerate(manifest.records)
    )
    with pytest.raises(UserError, match=r"12 of 12 \(target\) are in two splits"):
        refuse_leaks(torn)
    made = open_manifest(config(tmp_path, tmp_path / "out"))
    refuse_leaks(made)
    assert {r.split for r in made.records} == {"train", "validation", "test"}


def rows_of(folder: Path, batch: int = 4, start: int = 0, **values: object) -> list[np.ndarray]:
    """Some training batches [b, H, W, 2]."""
    settings = config(folder, folder / "out", **values)
    data = open_data(settings, open_manifest(settings))
    devices = Devices(tf.distribute.OneDeviceStrategy("CPU:0"), 0, 1, "CPU")
    batches = training_batches(
        data.train, example_maker(settings.optimizer), devices, batch, 0, start
    )
    return [batch["image"].numpy() for batch, _ in zip(batches, range(6), strict=False)]


@pytest.mark.parametrize("cache", ["true", "false"])
def test_training_sees_every_image_beside_its_own_map(cache: str, tmp_path: Path) -> None:
    make_set(tmp_path, 8, SPLITS)
    batches = rows_of(tmp_path, cache_dataset=cache)
    pairs = np.concatenate(batches)
    assert pairs.shape == (24, *SIZE, 2)
    image, depth = pairs[..., 0], pairs[..., 1]
    assert depth.min() == 0
    assert depth.max() == pytest.approx(1, abs=1e-6)
    # Depth is linear in brightness, so normalised depth is too.
    for x, y in zip(image, depth, strict=True):
        assert np.corrcoef(x.ravel(), y.ravel())[0, 1] > 0.97
    seen = {x.tobytes() for x in image[:12]}
    assert len(seen) == 12, "one epoch, every image once"
    later = rows_of(tmp_path, start=2, cache_dataset=cache)
    np.testing.assert_array_equal(later[0], batches[2])


def test_both_are_flipped_or_neither(tmp_path: Path) -> None:
    make = example_maker(RegressionSettings(horizontal_flip=True, vertical_flip=True))
    pair = tf.constant(np.random.default_rng(0).random((3, 2, 1), np.float32))
    both = tf.concat([pair, pair], -1)
    found = [make(both, tf.constant([0, i], tf.int64))["image"].numpy() for i in range(30)]
    assert all(np.array_equal(x[..., 0], x[..., 1]) for x in found)
    assert len({x.tobytes() for x in found}) == 4


def test_unpaired_maps_come_in_an_order_of_their_own(tmp_path: Path) -> None:
    make_set(tmp_path, 8, SPLITS)
    pairs = np.concatenate(rows_of(tmp_path, model="cyclegan", filters="2,2"))
    same = [np.corrcoef(x[..., 0].ravel(), x[..., 1].ravel())[0, 1] > 0.97 for x in pairs]
    assert 0 < np.mean(same) < 0.7
    maps = [x[..., 1].tobytes() for x in pairs]
    assert [maps.count(x) for x in set(maps)] == [4] * 6, "24 draws of 6 maps"
    guided = np.concatenate(rows_of(tmp_path, model="cyclegan", filters="2,2", guided_weight=1.0))
    assert all(np.corrcoef(x[..., 0].ravel(), x[..., 1].ravel())[0, 1] > 0.97 for x in guided)


def test_the_goal_may_be_images_of_another_microscope(tmp_path: Path) -> None:
    make_set(tmp_path, 8, SPLITS)
    real = make_real(tmp_path, 5)
    values = {"model": "cyclegan", "filters": "2,2", "direction": "real",
              "real_manifest": str(real)}  # fmt: skip
    pairs = np.concatenate(rows_of(tmp_path, **values))
    known = {np.asarray(Image.open(tmp_path / "real" / f"{i}.png")).tobytes() for i in range(5)}
    assert {np.rint(x[..., 1] * 255).astype(np.uint8).tobytes() for x in pairs} == known


def test_images_and_maps_of_several_sizes_are_refused(tmp_path: Path) -> None:
    manifest = make_set(tmp_path, 4, ("train",))
    file = tmp_path / manifest.records[3].target
    Image.fromarray(np.full((6, 8), 10000, np.uint16)).save(file)
    with pytest.raises(UserError, match=rf"{file.name} has 6x8 pixels, .*m00_0.png has 12x8"):
        rows_of(tmp_path)
    flat = Manifest.load(tmp_path / "manifest.csv").subset(manifest.records[:2])
    Image.fromarray(np.full(SIZE, 10000, np.uint16)).save(tmp_path / manifest.records[0].target)
    with pytest.raises(UserError, match="all training targets have the depth 100"):
        depth_range(flat)
