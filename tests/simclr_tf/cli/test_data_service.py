"""`simclr-data-service`: dispatcher and workers as the command starts them."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep.augment.views import ViewConfig
from data_prep.errors import UserError
from data_prep.manifest.scan import scan_folder
from data_prep.sources.manifest_source import ManifestSource
from simclr_tf.cli.data_service import main, start
from simclr_tf.config.sections import MachineSettings
from simclr_tf.training import data_service
from simclr_tf.training.batches import training_batches
from simclr_tf.training.distribution import connect as connect_devices
from simclr_tf.training.loopback import is_loopback
from tests.images import make_folder
from tests.simclr_tf.training.test_data_service import free_port


def command(*arguments: str) -> subprocess.Popen:
    program = [sys.executable, "-m", "simclr_tf.cli.data_service", *arguments]
    return subprocess.Popen(program, stderr=subprocess.DEVNULL)


@pytest.mark.thorough
@pytest.mark.slow
def test_processes_prepare_the_batches_of_a_run(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(3)]
    address, *workers = (f"localhost:{port}" for port in ports)
    address = f"grpc://{address}"
    servers = [command(f"--port={ports[0]}", f"--workers={','.join(workers)}")]
    try:
        wait_for(lambda: data_service.check_reachable(address, "data_service"))
        servers += [command(f"--dispatcher={address}", f"--address={own}") for own in workers]
        wait_for(lambda: data_service.connect(address))
        source = ManifestSource(scan_folder(make_folder(tmp_path)), cache="false")
        device = connect_devices(MachineSettings(distribute="one_device"))
        settings = (source, ViewConfig(16, 3), device, 4, 1, 5)
        expected = training_batches(*settings).take(6)  # type: ignore[attr-defined]
        found = training_batches(*settings, address).take(6)  # type: ignore[attr-defined]
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(other["index"], one["index"])
            np.testing.assert_array_equal(other["views"], one["views"])
        servers[1].send_signal(signal.SIGINT)
        assert servers[1].wait(20) == 130
    finally:
        for server in servers:
            server.kill()
            server.wait()


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.8.0.9", True), ("[::1]", True),
        ("::1", True), ("127.example.org", False), ("127.1", False), ("0.0.0.0", False),
        ("10.0.0.1", False), ("localhost.example.org", False), ("[::]", False), ("", False),
    ],
)  # fmt: skip
def test_names_that_only_look_like_loopback_are_of_other_machines(host: str, own: bool) -> None:
    assert is_loopback(host) == own


def wait_for(condition: object) -> None:
    """Calls until there is no more UserError."""
    deadline = time.monotonic() + 60
    while True:
        try:
            condition()  # type: ignore[operator]
            return
        except UserError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def outer_address() -> str:
    """An address of this machine that other machines know it by."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


def reached(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=0.7).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone filters sockets")
def test_a_service_is_reached_from_its_own_machine_alone_unless_told_otherwise() -> None:
    outer = outer_address()
    seen = {}
    for host in ("127.0.0.1", "0.0.0.0"):
        port, worker = free_port(), free_port()
        own = f"localhost:{worker}" if host == "127.0.0.1" else f"{outer}:{worker}"
        dispatcher = start(port, [own], None, None, host)
        server = start(0, [], f"grpc://localhost:{port}", own)
        seen[host] = [reached(at, n) for at in ("127.0.0.1", outer) for n in (port, worker)]
        del server, dispatcher
    assert seen == {"127.0.0.1": [True, True, False, False], "0.0.0.0": [True] * 4}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--workers=a:1"], "--host=0.0.0.0, inside a network that you trust"),
        ([], "give --workers=HOST:PORT,... to start a dispatcher, or"),
        (["--workers=a:1", "--dispatcher=grpc://b:2"], "give --workers"),
        (["--dispatcher=grpc://localhost:1"], "give --workers"),
        (["--workers=a:1,b"], "--workers=b: must be like HOST:PORT"),
        (["--dispatcher=grpc://b:2", "--address=grpc://a:1"], "must be like HOST:PORT"),
        (["--dispatcher=localhost:1", "--address=a:1"], "must be like grpc://HOST:PORT"),
        (["--dispatcher=grpc://localhost:1", "--address=a:1"], "no dispatcher answers there"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert problem in capsys.readouterr().err.splitlines()[-1]


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        arguments = [f"--port={taken.getsockname()[1]}", "--workers=localhost:1"]
        assert main(arguments) == 1
    assert "cannot be served" in capsys.readouterr().err.splitlines()[-1]
