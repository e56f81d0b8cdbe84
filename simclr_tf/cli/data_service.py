"""`simclr-data-service`: a dispatcher or a worker that prepares batches for `simclr-run`."""

import logging
import sys
import threading
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow
from data_prep.errors import UserError
from data_prep.settings import Config, setting

NAME = "simclr-data-service"
DESCRIPTION = """Prepares training batches on other machines (tf.data service): when decoding and
augmentation outgrow one machine.

Start one dispatcher, told the addresses of its workers, then each of the workers; give simclr-run
--data_service=grpc://HOST:PORT of the dispatcher. The batches and their order stay the same. All
machines must see the images under the same paths. The service asks nobody for a password: keep it
inside a network that you trust. Both are reached from this machine alone unless told otherwise: a
dispatcher by --host, a worker by its --address. Both run until they are stopped (Ctrl-C)."""

logger = logging.getLogger("simclr_tf.data_service")


@dataclass(frozen=True)
class DispatcherSettings:
    """Dispatcher."""

    host: Literal["127.0.0.1", "0.0.0.0"] = setting(
        "127.0.0.1", "Who reaches it: this machine alone, or every machine that can (0.0.0.0)."
    )
    port: int = setting(5050, "Port to listen on.", low=0)
    workers: tuple[str, ...] = setting((), "Addresses of all its workers, HOST:PORT,HOST:PORT.")


@dataclass(frozen=True)
class WorkerSettings:
    """Worker."""

    dispatcher: str = setting("", "Its dispatcher, grpc://HOST:PORT.")
    address: str = setting("", "Its own HOST:PORT, as the dispatcher was told it.")


@dataclass(frozen=True)
class DataServiceConfig(Config):
    """All settings of `simclr-data-service`."""

    serving: DispatcherSettings = field(default_factory=DispatcherSettings)
    working: WorkerSettings = field(default_factory=WorkerSettings)


def run(config: DataServiceConfig, _given: Collection[str]) -> None:
    """Serves until it is stopped."""
    d, w = config.serving, config.working
    server = start(d.port, list(d.workers), w.dispatcher or None, w.address or None, d.host)
    threading.Event().wait()
    del server


def start(
    port: int,
    workers: list[str],
    dispatcher: str | None,
    address: str | None,
    host: str = "127.0.0.1",
) -> Any:
    """Starts a dispatcher, or a worker if a dispatcher is given.

    Args:
        port: Where a dispatcher listens.
        workers: Addresses of the dispatcher's workers.
        dispatcher: Address of a worker's dispatcher.
        address: Address of the worker; one of the loopback interface is not reached from outside.
        host: Of a dispatcher: `127.0.0.1`, or `0.0.0.0` to be reached from other machines.

    Returns:
        The server, which serves as long as it is held.

    Raises:
        UserError: Flags of both or neither, or an address that cannot be used.
    """
    if bool(workers) == bool(dispatcher or address) or bool(dispatcher) != bool(address):
        raise UserError(
            "give --workers=HOST:PORT,... to start a dispatcher, or --dispatcher=grpc://HOST:PORT"
            " and --address=HOST:PORT to start a worker"
        )
    own_port = port if workers else _port("address", address or "")
    for worker in workers:
        _port("workers", worker)
    from simclr_tf.training.loopback import is_loopback, only_loopback

    others = [worker for worker in workers if not is_loopback(worker.rpartition(":")[0])]
    if others and host == "127.0.0.1":
        raise UserError(
            "on another machine it does not reach a dispatcher on"
            " 127.0.0.1; give --host=0.0.0.0, inside a network that you trust",
            setting="workers",
            value=others[0],
        )
    import_tensorflow()
    import tensorflow as tf

    from simclr_tf.training.data_service import check_reachable

    own_host = host if workers else (address or "").rpartition(":")[0]
    way_out = "--host=0.0.0.0" if workers else "--address with the name of this machine"
    kept: AbstractContextManager[None] = nullcontext()
    if is_loopback(own_host):
        kept = only_loopback(
            "this system cannot keep the service to the machine itself; give"
            f" {way_out}, inside a network that you trust"
        )
    service = tf.data.experimental.service
    try:
        if workers:
            config = service.DispatcherConfig(port=own_port, worker_addresses=workers)
            with kept:
                server = service.DispatchServer(config)
            logger.info("dispatcher of %d workers on %s:%d", len(workers), host, own_port)
            return server
        check_reachable(dispatcher or "", "dispatcher")
        place = (dispatcher or "").removeprefix("grpc://")
        worker_config = service.WorkerConfig(
            dispatcher_address=place, worker_address=address, port=own_port
        )
        with kept:
            server = service.WorkerServer(worker_config)
    except (RuntimeError, tf.errors.OpError) as error:
        raise UserError(f"port {own_port} cannot be served: {error}; take another") from None
    logger.info("worker %s of %s", address, dispatcher)
    return server


def _port(flag: str, place: str) -> int:
    host, _, port = place.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise UserError("must be like HOST:PORT", setting=flag, value=place)
    return int(port)


COMMAND = Command(NAME, DESCRIPTION, DataServiceConfig, run)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
