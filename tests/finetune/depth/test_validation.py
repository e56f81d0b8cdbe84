"""Errors in physical units over whole splits, without the traps of the original."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from finetune.depth.metrics import DepthValidation, ErrorSums, MapMaker, errors_by_case
from finetune.depth.pairs import DepthSet, gray_source
from finetune.depth.trained import in_units
from simclr_tf.training.distribution import Devices
from tests.finetune.depth.sets import SIZE, make_set
from tests.replicas import mirrored


def test_the_error_is_the_root_of_the_mean_over_everything() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(100, 200, (7, 4, 3)).astype(np.float32)
    spread = np.arange(1, 8)[:, None, None]
    predicted = (true + rng.normal(0, spread, true.shape)).astype(np.float32)
    sums = ErrorSums()
    batches = (slice(0, 3), slice(3, 6), slice(6, 7))
    for part in batches:
        sums.add(predicted[part], true[part])
    pairs = zip(predicted.ravel().tolist(), true.ravel().tolist(), strict=True)
    wanted = (sum((p - t) ** 2 for p, t in pairs) / true.size) ** 0.5
    found = sums.errors()
    assert found["rmse"] == pytest.approx(wanted, rel=1e-6)
    # The original's number was the root of the mean absolute difference of values cast to int8.
    trap = np.sqrt(np.abs(predicted.astype(np.int8) - true.astype(np.int8)).mean())
    by_batch = np.mean([np.sqrt(np.square(predicted[p] - true[p]).mean()) for p in batches])
    assert abs(found["rmse"] - by_batch) > 0.1
    assert abs(found["rmse"] - np.sqrt(found["mae"])) > 0.1
    assert abs(found["rmse"] - trap) > 0.1
    assert found["mae"] == pytest.approx(np.abs(predicted - true).mean(), rel=1e-5)


def test_errors_of_cases_are_those_of_their_images(tmp_path: Path) -> None:
    images = DepthSet(make_set(tmp_path, 3))
    true = images.targets(images.records)[..., 0]
    offset = np.array([1, 1, 5, 5, 1, 1], np.float32)[:, None, None]
    found = errors_by_case(images, lambda records: true + offset)
    assert found["c1"] == pytest.approx({"rmse": 1, "mae": 1}, rel=1e-5)
    assert found["c2"] == pytest.approx({"rmse": 5, "mae": 5}, rel=1e-5)
    assert found[""]["rmse"] == pytest.approx(np.sqrt((4 * 1 + 2 * 25) / 6), rel=1e-5)
    constant = errors_by_case(images, lambda records: np.array(120.0))
    assert constant[""]["rmse"] == pytest.approx(np.sqrt(np.square(true - 120.0).mean()), rel=1e-6)


@pytest.mark.parametrize("replicas", [1, 2])
def test_validation_is_in_units_and_of_every_image(replicas: int, tmp_path: Path) -> None:
    images = DepthSet(make_set(tmp_path, 5))  # 10 images in passes of 4
    strategy = tf.distribute.OneDeviceStrategy("CPU:0") if replicas == 1 else mirrored(replicas)
    maker = MapMaker(lambda x: x * 0.5, SIZE, Devices(strategy, 0, 1, "CPU"), 4)
    validation = DepthValidation(images, gray_source(images.manifest, "auto"), maker, (100, 260))
    predicted = 100 + 160 * 0.5 * images.images(images.records)
    wanted = np.sqrt(np.square(predicted - images.targets(images.records)).mean(dtype=np.float64))
    assert validation()["rmse"] == pytest.approx(wanted, rel=1e-5)
    assert 1 < wanted < 2, "noise of 0.02, of 80 units"


def test_normalized_depth_goes_back_to_units() -> None:
    found = in_units(np.array([0, 0.5, 1, 1.1], np.float32), (120.0, 220.0))
    np.testing.assert_allclose(found, [120, 170, 220, 230], rtol=1e-6)
    assert found.dtype == np.float32
