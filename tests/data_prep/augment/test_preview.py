from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data_prep.augment.contact_sheet import chosen_images, copy_rows, supervised_rows, view_rows
from data_prep.augment.copies import CopyPlan, write_copies
from data_prep.augment.draws import example_seed
from data_prep.augment.image_data_generator import SupervisedConfig, resized, supervised_image
from data_prep.augment.views import ViewConfig, device_views, host_views
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.scan import scan_folder
from data_prep.reading.images import read_image
from tests.data_prep.augment.common import noise
from tests.data_prep.image_files import pixels, write


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("set")
    places = ["train/a/0.png", "train/a/1.png", "train/a/2.png", "train/b/3.png", "test/a/4.png"]
    for number, place in enumerate(places):
        write(root / place, pixels(number, 20, 26))
    return scan_folder(root)


def test_classes_take_turns_and_only_training_images_are_shown(manifest: Manifest) -> None:
    assert [r.path for r in chosen_images(manifest, 3).records] == [
        "train/a/0.png",
        "train/b/3.png",
        "train/a/1.png",
    ]
    assert len(chosen_images(manifest, 9)) == 4
    flat = Manifest(tuple(Record(f"{n}.png") for n in range(5)))
    assert [r.path for r in chosen_images(flat, 2).records] == ["0.png", "1.png"]


def test_copies_shown_are_those_written(manifest: Manifest, tmp_path: Path) -> None:
    plan = CopyPlan(("vflip", "stronger"), copies=2, seed=7)
    columns, rows = copy_rows(manifest, 2, plan)
    assert columns == ["image", "vflip 1", "stronger 1", "stronger 2"]
    assert copy_rows(manifest, 1, CopyPlan(("vflip", "rotate")))[0] == ["image", "vflip", "rotate"]
    assert [row.names for row in rows] == [("a", "0.png"), ("b", "3.png")]
    written = write_copies(manifest, tmp_path / "out", plan)
    for row, stem in zip(rows, ["train/a/0", "train/b/3"], strict=True):
        files = [r.path for r in written.records if r.path.startswith(stem)]
        assert len(files) == 4
        for image, file in zip(row.images, files, strict=True):
            np.testing.assert_array_equal(image, read_image(str(tmp_path / "out" / file)))


def test_copies_are_shown_by_the_images_rule_of_reading(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise(1, (8, 9), np.float32) * 500)
    listed = Manifest((Record("a.npy", reading="intensity=sqrt"),), str(tmp_path))
    _, (row,) = copy_rows(listed, 1, CopyPlan(("hflip",)))
    expected = read_image(str(tmp_path / "a.npy"), None, "intensity=sqrt")
    np.testing.assert_array_equal(row.images[0], expected)
    np.testing.assert_array_equal(row.images[1], expected[:, ::-1])
    with pytest.raises(UserError, match=r"a\.npy: noise changes grey levels"):
        copy_rows(listed, 1, CopyPlan(("noise",)))


def test_views_shown_are_those_of_training(manifest: Manifest) -> None:
    chosen = chosen_images(manifest, 2)
    config = ViewConfig(16, 3, num_views=3)
    columns, rows = view_rows(chosen, config, seed=5)
    assert columns == ["image", "view 1", "view 2", "view 3"]
    image = tf.constant(read_image(chosen.files()[1]))
    views, draws = host_views(image, example_seed(5, 0, 1), config)
    expected = device_views(views[None], draws[None], config)[0]
    np.testing.assert_array_equal(rows[1].images[0], image)
    np.testing.assert_allclose(np.stack(rows[1].images[1:]), expected, atol=1e-6)


def test_supervised_rows_show_one_epoch_after_the_other(manifest: Manifest) -> None:
    chosen = chosen_images(manifest, 2)
    config = SupervisedConfig(rotation_range=30)
    columns, rows = supervised_rows(chosen, config, channels=3, image_size=16, epochs=2, seed=1)
    assert columns == ["image", "epoch 1", "epoch 2"]
    pixels = resized(tf.constant(read_image(chosen.files()[1])), 16, 16)
    for epoch in range(2):
        expected = supervised_image(pixels, example_seed(1, epoch, 1), config) / 255
        np.testing.assert_allclose(rows[1].images[1 + epoch], expected, atol=1e-6)
    assert np.abs(rows[1].images[1] - rows[1].images[2]).max() > 0.05
