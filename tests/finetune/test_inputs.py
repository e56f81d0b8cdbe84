"""What the network is shown: crops as in scoring, augmentation anew each epoch, all in [0, 1]."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_prep.augment.image_data_generator import supervised_image
from data_prep.augment.views import evaluation_image, example_seed
from data_prep.manifest.scan import scan_folder
from data_prep.sources.manifest_source import ManifestSource
from finetune.config import FinetuneConfig
from finetune.inputs import image_steps, sample_views, skipped
from simclr_tf.config.sections import MachineSettings
from simclr_tf.training.batches import training_batches
from simclr_tf.training.distribution import connect
from tests.images import make_folder, picture


def settings(**values: Any) -> Any:
    return FinetuneConfig.from_values({"image_size": 40, **values}).augment


def image(dtype: tf.DType = tf.uint8) -> tf.Tensor:
    pixels = picture("dots", 64, np.random.default_rng(0))
    return tf.constant(pixels) if dtype == tf.uint8 else tf.constant(pixels / np.float32(255))


def seed(epoch: int = 0) -> tf.Tensor:
    return example_seed(0, epoch, 3)


def test_without_augmentation_training_images_are_those_of_scoring() -> None:
    steps = image_steps(settings(), "none", 3)
    wanted = evaluation_image(image(), settings().view_config(3, num_views=1))
    np.testing.assert_array_equal(steps.scored(image()), wanted)
    np.testing.assert_array_equal(steps.training_example()(image(), seed())["image"], wanted)
    assert not steps.augments
    assert steps.shape == (40, 40, 3)


@pytest.mark.parametrize("augment", ["views", "generator"])
def test_augmentation_differs_between_epochs_and_repeats_within_one(augment: str) -> None:
    steps = image_steps(settings(rotation_range=30.0), augment, 3)
    make = steps.training_example()
    name = "views" if augment == "views" else "image"
    first, again, later = (make(image(), seed(e))[name].numpy() for e in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, later)
    assert steps.augments


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
def test_the_generator_scales_to_one_once_and_only_once(dtype: tf.DType) -> None:
    steps = image_steps(settings(horizontal_flip=False), "generator", 3)
    made = steps.training_example()(image(dtype), seed())["image"].numpy()
    plain = tf.cast(steps.scored(image(dtype)), tf.float32) / (255 if dtype == tf.uint8 else 1)
    np.testing.assert_allclose(made, plain, atol=1e-6)
    assert 0.5 < made.max() <= 1


def test_the_generator_is_that_of_the_augmentation_package_on_the_scored_image() -> None:
    asked = settings(rotation_range=25.0, brightness_range="0.7,1.3", fill_mode="reflect")
    steps = image_steps(asked, "generator", 3)
    made = steps.training_example()(image(), seed(5))["image"]
    theirs = supervised_image(steps.scored(image()), seed(5), asked.generator())
    np.testing.assert_allclose(made, np.clip(theirs / 255, 0, 1), atol=1e-6)


def test_color_operations_on_gray_images_are_told_of() -> None:
    asked = settings(color_jitter_strength=0.5, gray_probability=0.2)
    assert "hue" in skipped(image_steps(asked, "views", 1))
    assert skipped(image_steps(asked, "none", 1)) == []


@pytest.mark.slow
def test_kept_images_are_augmented_anew_every_epoch(tmp_path: Path) -> None:
    """What a source keeps in memory is decoded, never augmented."""
    images = scan_folder(make_folder(tmp_path, per_class=2, size=48))
    source = ManifestSource(images, cache="true")
    steps = image_steps(settings(rotation_range=40.0), "generator", 3)
    devices = connect(MachineSettings(distribute="one_device"))
    batches = training_batches(source, steps.training_example(), devices, 6, 0, 0)
    shown: list[dict[int, np.ndarray]] = []
    for batch, _ in zip(batches, range(2), strict=False):
        shown.append(dict(zip(batch["index"].numpy().tolist(), batch["image"], strict=True)))
    assert sorted(shown[0]) == sorted(shown[1]) == list(range(6)), "an epoch is every image once"
    assert not any(np.array_equal(shown[0][i], shown[1][i]) for i in range(6))


@pytest.mark.parametrize(("augment", "views"), [("none", 1), ("views", 4), ("generator", 4)])
def test_the_sheet_shows_what_training_sees(tmp_path: Path, augment: str, views: int) -> None:
    images = scan_folder(make_folder(tmp_path, per_class=2, size=48))
    source = ManifestSource(images)
    steps = image_steps(settings(), augment, 3)
    sheet = sample_views(source, steps, 0, 4)
    assert sheet.shape == (4, views, 40, 40, 3)
    assert sheet.min() >= 0
    assert 0.5 < sheet.max() <= 1
    if augment == "generator":
        devices = connect(MachineSettings(distribute="one_device"))
        batch = next(iter(training_batches(source, steps.training_example(), devices, 4, 0, 0)))
        np.testing.assert_allclose(batch["image"], sheet[:, 0], atol=1e-6)
