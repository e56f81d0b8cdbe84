"""Batches come at once, and an iterator over them is let go at once."""

import time
from pathlib import Path

import pytest

from data_prep.augment.views import ViewConfig
from data_prep.scan import scan_folder
from data_prep.sources import ManifestSource
from simclr_tf.distribution import connect
from simclr_tf.sections import MachineSettings
from simclr_tf.training.inputs import training_batches
from tests.images import make_folder


@pytest.mark.slow
def test_an_iterator_that_ran_for_a_while_is_let_go_at_once(tmp_path: Path) -> None:
    """With tf.data's tuner the wait grew with the run, up to a minute.

    It looks up 10 ms after the start, then 20 ms later, 40 ms, ...: at 5.1 s, and at 10.2 s.
    """
    source = ManifestSource(scan_folder(make_folder(tmp_path)), channels=3)
    devices = connect(MachineSettings(distribute="one_device"))
    batches = training_batches(source, ViewConfig(16, 3), devices, 8, seed=0, start_step=0)
    iterator = iter(batches)
    began = time.perf_counter()
    while time.perf_counter() - began < 6:
        next(iterator)
        time.sleep(0.01)
    began = time.perf_counter()
    del iterator
    assert time.perf_counter() - began < 2
