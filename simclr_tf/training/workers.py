"""Workers that train together: that they agree before the first step, and what ends them."""

import hashlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.manifest.digest import files_digest
from data_prep.manifest.manifest import Manifest
from data_prep.settings import Config
from simclr_tf.training.distribution import Devices, connected_workers

log = logging.getLogger(__name__)

# Settings that may differ between workers: where each finds the images and the run.
_OWN = frozenset("image_dir manifest target_dir real_manifest tfrecord_dir data_dir cache_dir "
                 "model_dir output checkpoint teacher encoder weights overwrite download "
                 "num_cpu_devices".split())  # fmt: skip

# What TensorFlow raises where another process no longer answers.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
)


def check_agreement(devices: Devices, facts: Mapping[str, Any], mend: str) -> None:
    """Refuses to train if some worker knows one of the facts otherwise; all must call it.

    Args:
        devices: The devices of the run.
        facts: What is to be the same, by name; the same names on all workers.
        mend: What is to be done if they are not.

    Raises:
        UserError: On all workers, if they differ.
    """
    if devices.num_workers == 1:
        return
    names = sorted(facts)
    found = _from_all(devices, [_number(repr(facts[name])) for name in names])
    differing = np.flatnonzero((found != found[0]).any(axis=0))
    if differing.size:
        rows = np.flatnonzero((found != found[0]).any(axis=1))
        worker = int(rows[0]) * devices.num_workers // len(found)
        what = ", ".join(names[i] for i in differing[:6])
        raise UserError(f"worker {worker} and worker 0 differ in {what}: {mend}")


def check_settings(devices: Devices, config: Config) -> None:
    """Refuses to train if workers were started with different flags; all must call it."""
    own = {f"--{n}": value for n, value in config.values().items() if n not in _OWN}
    versions = {
        "the version of simclr-tf": f"{version('simclr-tf')} with {sorted(own)}",
        "the version of TensorFlow": tf.__version__,
        "the version of Keras": keras.__version__,
    }
    check_agreement(devices, versions, "install the same on all of them")
    check_agreement(devices, own, "start all workers with the same flags")


def check_images(
    devices: Devices, identity: str, manifest: Manifest | None, files: Sequence[str] = ()
) -> None:
    """Refuses to train if workers have different images; all must call it.

    Args:
        devices: The devices of the run.
        identity: Of the training images.
        manifest: All images; None if they do not lie in files of their own.
        files: The files that they lie in then.
    """
    if devices.num_workers == 1:
        return
    if manifest is not None:
        files = [*manifest.files(), *filter(None, manifest.target_files())]
    facts = {
        "which images they train on": identity,
        "the list of all images": manifest.sha256() if manifest else "",
        "the content of the image files": files_digest(files),
    }
    check_agreement(devices, facts, "give all workers the same images")


def check_start(devices: Devices, step: int, weights: str) -> None:
    """Refuses to train if workers stand at different points of the run; all must call it.

    Args:
        devices: The devices of the run.
        step: Steps already taken.
        weights: Hash of the network.
    """
    facts = {"the step that they go on from": step, "the network's weights": weights}
    mend = "the run's folder must be one that all workers see, and --checkpoint the same file"
    check_agreement(devices, facts, mend)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def _from_all(devices: Devices, numbers: list[int]) -> np.ndarray:
    """The numbers of every replica, int64 [replicas, n]."""
    strategy = devices.strategy

    @tf.function
    def gathered(row: tf.Tensor) -> tf.Tensor:
        return strategy.gather(strategy.run(tf.identity, (row,)), axis=0)

    return gathered(tf.constant([numbers], tf.int64)).numpy()


@contextmanager
def naming_lost_workers() -> Iterator[None]:
    """Turns what TensorFlow says when another worker has died into one line.

    Raises:
        UserError: Another worker is gone.
    """
    try:
        yield
    except _LOST as error:
        workers = connected_workers()
        if workers == 1:
            raise
        log.debug("TensorFlow says: %s", error)
        # TensorFlow's threads wait for the other worker: they cannot end in order, and say so.
        sys.unraisablehook = lambda _: None
        raise UserError(
            f"another of the {workers} workers is gone or out of reach; start all of "
            "them again with the same command: they go on from the last checkpoint"
        ) from None
