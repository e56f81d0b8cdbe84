"""Preprocessing on other machines, by tf.data's service: the same batches in the same order.

A dispatcher knows a fixed list of workers. Worker w of W prepares the batches w, w + W, w + 2W, ...
and the training process asks the workers in turn. Which batch is made where changes nothing in it:
every batch is a function of the run's seed and the step.

The workers read the images themselves, so the paths must be the same there. A batch that is not the
one whose turn it is, because a worker was started anew, stops the run; the same command goes on
from the last checkpoint.
"""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from data_prep.errors import UserError
from data_prep.reading.headers import in_short
from data_prep.sources.source import Source

service = tf.data.experimental.service

TIMEOUT = 15.0  # seconds to reach the dispatcher
_MOST_WORKERS = 1024
# What tf.data replaces, on each worker, by the number of workers and its own.
_WORKERS = _THIS_WORKER = tf.data.experimental.SHARD_HINT
_OUT_OF_TURN = "the batches of the data service do not come in turn"


@dataclass(frozen=True)
class DataService:
    """A running service.

    Attributes:
        address: Of the dispatcher, `grpc://HOST:PORT`.
        workers: How many workers it has, all of which answer.
    """

    address: str
    workers: int

    def collect(self, own_batches: Callable[[int, int], tf.data.Dataset]) -> tf.data.Dataset:
        """The batches that the workers prepare, in order.

        Args:
            own_batches: For worker w of W: the endless batches w, w + W, ... as dictionaries.
        """
        read = [self._from_worker(worker, own_batches) for worker in range(self.workers)]
        turns = tf.data.Dataset.range(self.workers).repeat()
        return _checked(tf.data.Dataset.choose_from_datasets(read, turns))

    def _from_worker(
        self, worker: int, own_batches: Callable[[int, int], tf.data.Dataset]
    ) -> tf.data.Dataset:
        """The batches that one worker prepares, with their numbers.

        All workers are sent the pipeline; on the others it is empty. (Reading all of them as one
        would pass over a worker that is slow for once, and so change the order.)
        """

        def pipeline(_: tf.Tensor) -> tf.data.Dataset:
            numbers = tf.data.Dataset.counter(tf.constant(worker, tf.int64), self.workers)
            return tf.data.Dataset.zip(numbers, own_batches(worker, self.workers))

        no_autograph = tf.autograph.experimental.do_not_convert
        here = tf.data.Dataset.range(_MOST_WORKERS).shard(_WORKERS, _THIS_WORKER).take(1)
        here = here.filter(no_autograph(lambda number: number == worker))
        hinted = service.distribute(service.ShardingPolicy.HINT, self.address)
        return here.flat_map(no_autograph(pipeline)).apply(hinted)


def connect(address: str) -> DataService:
    """Finds the service and calls the roll of its workers.

    Args:
        address: `grpc://HOST:PORT` of the dispatcher.

    Raises:
        UserError: No such address, no dispatcher there, or workers missing.
    """
    check_reachable(address, "data_service")
    pairs = _call_the_roll(address)
    workers = pairs[0][1] - pairs[0][0]
    missing = sorted(set(range(workers)) - {first for first, _ in pairs})
    if missing:
        raise UserError(
            f"of the {workers} workers these do not answer:"
            f" {', '.join(f'number {worker}' for worker in missing)}; start all of them first",
            setting="data_service",
            value=address,
        )
    return DataService(address, workers)


def _call_the_roll(address: str) -> list[tuple[int, int]]:
    """Asks each worker for its number, and for the sum of it and the number of workers."""
    answers: list[tuple[int, int]] = []
    failures: list[tf.errors.OpError] = []

    def call() -> None:
        numbers = tf.data.Dataset.range(2 * _MOST_WORKERS).shard(_WORKERS, _THIS_WORKER)
        hinted = service.distribute(service.ShardingPolicy.HINT, address)
        try:
            for first, second in numbers.take(2).batch(2).apply(hinted):
                answers.append((int(first), int(second)))
        except tf.errors.OpError as error:
            failures.append(error)

    # Without any worker TensorFlow waits for one for ever.
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if failures:
        raise UserError(
            f"the dispatcher refuses ({in_short(failures[0])}); it must"
            " be started with the addresses of its workers, as simclr-data-service does",
            setting="data_service",
            value=address,
        )
    if not answers:
        raise UserError(
            "no worker answers; start the workers, and the dispatcher"
            " with their addresses, as simclr-data-service does",
            setting="data_service",
            value=address,
        )
    return sorted(answers)


def check_portable(source: Source) -> None:
    """Refuses sources whose pipeline cannot be sent to another machine.

    Raises:
        UserError: Images are held in memory here, or only Python can decode them.
    """
    if getattr(source, "cached", False):
        raise UserError("--data_service reads images afresh: give --cache_dataset=false with it")
    elements = source.elements(seed=0, shuffle=False, start=0, batch_size=1)
    decode = tf.function(source.decode, autograph=False)
    graph = decode.get_concrete_function(elements.element_spec).graph.as_graph_def()
    nodes = [*graph.node, *(node for part in graph.library.function for node in part.node_def)]
    if any("PyFunc" in node.op for node in nodes):
        raise UserError(
            "some images can only be decoded in Python (TIFF, arrays, declared"
            " readings), which the service's workers cannot; save them as PNG or JPEG",
            setting="data_service",
        )


def out_of_turn(error: Exception) -> UserError | None:
    """The error to report if a worker of the service made training fail; None for other causes."""
    if _OUT_OF_TURN not in str(error):
        return None
    return UserError(
        f"{_OUT_OF_TURN}: a worker has been started anew; the same command goes on from the last"
        " checkpoint"
    )


def check_reachable(address: str, flag: str) -> None:
    """Refuses an address that is none, or where nobody listens.

    Args:
        address: `grpc://HOST:PORT`.
        flag: Name of the flag it was given with.

    Raises:
        UserError: After `TIMEOUT` seconds at the latest.
    """
    protocol, separator, place = address.partition("://")
    host, _, port = place.rpartition(":")
    if protocol != "grpc" or not separator or not host or not port.isdigit():
        raise UserError("must be like grpc://HOST:PORT", setting=flag, value=address)
    try:
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"no dispatcher answers there ({reason}); start it first, or correct the address",
            setting=flag,
            value=address,
        ) from None


def _checked(numbered: tf.data.Dataset) -> tf.data.Dataset:
    """The batches without their numbers; fails if one is not in its place."""

    def check(place: tf.Tensor, held: tuple[tf.Tensor, dict[str, tf.Tensor]]) -> tf.Tensor:
        number, batch = held
        with tf.control_dependencies([tf.debugging.assert_equal(number, place, _OUT_OF_TURN)]):
            return {name: tf.identity(value) for name, value in batch.items()}

    return numbered.enumerate().map(tf.autograph.experimental.do_not_convert(check))
