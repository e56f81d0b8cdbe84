"""Batches that workers of a tf.data service prepare."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_prep.augment.views import ViewConfig
from data_prep.errors import UserError
from data_prep.manifest.scan import scan_folder
from data_prep.sources import streams
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.source import Source
from data_prep.sources.streams import TFRecordSource
from data_prep.sources.tfrecord_writer import write_shards
from simclr_tf.config.sections import MachineSettings
from simclr_tf.training import data_service
from simclr_tf.training.batches import training_batches
from simclr_tf.training.distribution import Devices
from simclr_tf.training.distribution import connect as connect_devices
from tests.data_prep.image_files import pixels, write_tiff
from tests.images import make_folder

service = tf.data.experimental.service
VIEWS = ViewConfig(16, 3)


class Cluster:
    """A dispatcher that knows some workers, of which some are started."""

    def __init__(self, workers: int, aware: bool = True):
        self.places = [("localhost", free_port()) for _ in range(workers)]
        self.addresses = [f"{host}:{port}" for host, port in self.places]
        config = service.DispatcherConfig(worker_addresses=self.addresses if aware else None)
        self.dispatcher = service.DispatchServer(config)
        self.workers: dict[int, Any] = {}

    @property
    def address(self) -> str:
        return self.dispatcher.target

    def start(self, number: int) -> None:
        self.workers[number] = service.WorkerServer(
            service.WorkerConfig(
                dispatcher_address=self.address.removeprefix("grpc://"),
                worker_address=self.addresses[number],
                port=self.places[number][1],
                heartbeat_interval_ms=100,
            )
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """Two workers, the second of which registers first."""
    two = Cluster(2)
    two.start(1)
    two.start(0)
    return two


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images"), per_class=7)


@pytest.fixture(params=["folder", "shards", "shards, small buffer"])
def source(
    request: pytest.FixtureRequest, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Source:
    manifest = scan_folder(folder)
    if request.param == "folder":
        return ManifestSource(manifest, cache="false")
    if "small" in request.param:
        monkeypatch.setattr(streams, "SHUFFLE_BYTES", 1)
        monkeypatch.setattr(streams, "_LEAST_BUFFER", 5)
    write_shards(manifest, tmp_path / "shards", 2)
    return TFRecordSource(tmp_path / "shards")


def one_device() -> Devices:
    return connect_devices(MachineSettings(distribute="one_device"))


def batches(source: Source, number: int, start: int, address: str = "") -> Iterator[Any]:
    dataset = training_batches(source, VIEWS, one_device(), 4, 3, start, address)
    return iter(dataset.take(number))  # type: ignore[attr-defined]


@pytest.mark.slow
def test_two_workers_give_the_local_batches_in_order(source: Source, cluster: Cluster) -> None:
    local = list(batches(source, 7, start=0))
    remote = list(batches(source, 7, start=0, address=cluster.address))
    gone_on = list(batches(source, 4, start=3, address=cluster.address))
    assert len(remote) == 7
    for expected, found in zip(local + local[3:], remote + gone_on, strict=True):
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.slow
def test_replicas_get_the_rows_that_they_get_without_a_service(
    folder: Path, cluster: Cluster
) -> None:
    source = ManifestSource(scan_folder(folder), cache="false")
    alone = next(batches(source, 1, start=1))
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    two = Devices(strategy, 0, 1, "CPU")
    shared = next(iter(training_batches(source, VIEWS, two, 4, 3, 1, cluster.address)))
    rows = np.concatenate(strategy.experimental_local_results(shared["views"]))
    np.testing.assert_array_equal(rows, alone["views"])


@pytest.mark.slow
def test_workers_that_are_missing_are_counted_before_the_first_step(folder: Path) -> None:
    three = Cluster(3)
    three.start(1)
    three.start(2)
    with pytest.raises(UserError, match="of the 3 workers these do not answer: number 0;"):
        data_service.connect(three.address)
    three.start(0)
    assert data_service.connect(three.address).workers == 3


def test_a_dispatcher_without_workers_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_service, "TIMEOUT", 0.5)
    one = Cluster(1)
    with pytest.raises(UserError, match="no worker answers"):
        data_service.connect(one.address)
    one.start(0)  # lets the call that still waits end
    assert data_service.connect(one.address).workers == 1


def test_a_dispatcher_that_does_not_know_its_workers_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(data_service, "TIMEOUT", 3.0)
    unaware = Cluster(1, aware=False)
    unaware.start(0)
    with pytest.raises(UserError, match=r"start(ed)?.* with (their|the) addresses"):
        data_service.connect(unaware.address)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("localhost:5050", "must be like grpc://HOST:PORT"),
        ("grpc://localhost", "must be like grpc://HOST:PORT"),
        ("grpc://localhost:port", "must be like grpc://HOST:PORT"),
        ("grpc://localhost:1", "no dispatcher answers there .*start it first"),
        ("grpc://localhost:99999", "no dispatcher answers there"),
    ],
)
def test_bad_addresses_are_one_line(address: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        data_service.connect(address)


def test_batches_out_of_turn_stop_the_run() -> None:
    def numbered(numbers: list[int]) -> tf.data.Dataset:
        values = tf.constant(numbers, tf.int64)
        batch = {"index": values * 10}
        return tf.data.Dataset.from_tensor_slices((values, batch))

    ordered = data_service._checked(numbered([0, 1, 2, 3]))
    assert [int(batch["index"]) for batch in ordered] == [0, 10, 20, 30]
    for wrong in ([0, 2, 1], [0, 0], [1]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="do not come in turn") as caught:
            list(data_service._checked(numbered(wrong)))
        assert "goes on from the last checkpoint" in str(data_service.out_of_turn(caught.value))
    assert data_service.out_of_turn(ValueError("another")) is None


def test_pipelines_that_cannot_travel_are_refused(folder: Path, tmp_path: Path) -> None:
    held = ManifestSource(scan_folder(folder), cache="true")
    with pytest.raises(UserError, match="give --cache_dataset=false"):
        data_service.check_portable(held)
    write_tiff(tmp_path / "a.tif", pixels(1))
    in_python = ManifestSource(scan_folder(tmp_path), cache="false")
    with pytest.raises(UserError, match="can only be decoded in Python"):
        data_service.check_portable(in_python)
    data_service.check_portable(ManifestSource(scan_folder(folder), cache="false"))
