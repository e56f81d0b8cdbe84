"""Who brings batches to the replicas."""

import numpy as np
import pytest
import tensorflow as tf

from data_prep.augment.views import ViewConfig
from data_prep.manifest.scan import scan_folder
from data_prep.sources.manifest_source import ManifestSource
from simclr_tf.config.sections import MachineSettings
from simclr_tf.training.batches import evaluation_batches, training_batches
from simclr_tf.training.distribution import Devices, connect
from tests.images import make_folder

VIEWS = ViewConfig(16, 3)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ManifestSource:
    return ManifestSource(scan_folder(make_folder(tmp_path_factory.mktemp("i"))), channels=3)


def one_device() -> Devices:
    return connect(MachineSettings(distribute="one_device"))


def test_on_one_cpu_nothing_waits_for_a_tuner(source: ManifestSource) -> None:
    """Whoever let go of an iterator with a tuner waited up to a minute for it to look up."""
    batches = training_batches(source, VIEWS, one_device(), 8, seed=0, start_step=0)
    passed, _ = evaluation_batches(source, VIEWS, one_device(), 8)
    for dataset in (batches, passed):
        assert isinstance(dataset, tf.data.Dataset)
        assert dataset.options().autotune.enabled is False


def test_replicas_get_the_rows_that_one_device_gets(source: ManifestSource) -> None:
    alone = next(iter(training_batches(source, VIEWS, one_device(), 8, seed=3, start_step=2)))
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    two = Devices(strategy, 0, 1, "CPU")
    shared = next(iter(training_batches(source, VIEWS, two, 8, seed=3, start_step=2)))
    for name, value in alone.items():
        rows = np.concatenate(strategy.experimental_local_results(shared[name]))
        np.testing.assert_array_equal(rows, value, err_msg=name)
