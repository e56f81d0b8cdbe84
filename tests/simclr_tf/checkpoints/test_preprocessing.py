"""The record of preprocessing that travels with networks, and what is made of it."""

import json
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_prep.augment.views import ViewConfig, evaluation_crops, evaluation_image
from data_prep.manifest.read_options import Declaration
from data_prep.reading.training_files import TrainingFiles
from simclr_tf.checkpoints.preprocessing import Preprocessing

OF_0_1_0 = (
    '{"image_size": 48, "value_range": [0, 1], "channels": 1, "crop_proportion": 0.875,'
    ' "central_crop": 0.5, "class_names": ["a", "b"],'
    ' "reading": {"intensity": "percentile:1,99", "nan": "zero", "tile": 64}}'
)
OF_TODAY = (
    '{"image_size": 48, "value_range": [0, 1], "channels": 3, "crop_proportion": 1.0,'
    ' "central_crop": 0.0, "whole_image": true, "class_names": ["a", "b"],'
    ' "reading": {"nan": "min", "exif": "apply"},'
    ' "training_files": {"bits": [8, 16], "channels": [1], "values": [0.1, 0.912346]}}'
)


def test_a_record_is_written_as_before_and_read_back_whole() -> None:
    views = ViewConfig(48, 3, whole_image=True, color_jitter_strength=1.0)
    files = TrainingFiles((8, 16), (1,), (0.1, 0.9123456789))
    made = Preprocessing.of_training(views, ("a", "b"), Declaration(nan="min"), files)
    assert json.dumps(made.record()) == OF_TODAY
    read = Preprocessing.from_record(json.loads(OF_TODAY))
    assert json.dumps(read.record()) == OF_TODAY
    assert read.views == ViewConfig(48, 3, whole_image=True)
    assert read.reading.declaration == Declaration(nan="min")


def test_a_network_of_before_reads_on_as_it_was_trained() -> None:
    """It has seen photographs as stored, and percentiles of a sample of the values."""
    old = Preprocessing.from_record(json.loads(OF_0_1_0))
    expected: dict[str, Any] = {"intensity": "percentile:1,99", "nan": "zero"}
    assert old.reading.declaration == Declaration(
        **expected, percentiles="sampled", exif="ignore", tile=64
    )
    assert old.reading.files is None
    # Another network may turn them upright, and has tiles of its own.
    settings = {"image_size": 48, "central_crop": 0.5, "whole_image": False}
    assert old.settings() == {**settings, **expected, "percentiles": "sampled"}


@pytest.mark.parametrize("crops", [1, 2])
def test_the_crops_that_are_scored(crops: int) -> None:
    image = tf.constant(np.random.default_rng(0).integers(0, 256, (60, 80, 3)), tf.uint8)
    preprocessing = Preprocessing(48, 3, central_crop=0.9)
    views = ViewConfig(48, 3, central_crop=0.9)
    one, many = evaluation_image(image, views)[tf.newaxis], evaluation_crops(image, views, 2)
    found = preprocessing.inputs(image, crops)
    assert found.shape == (crops**2, 48, 48, 3)
    np.testing.assert_array_equal(found, one if crops == 1 else many)
