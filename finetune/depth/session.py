"""The parts of a depth network's run, opened and checked before anything is trained."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import keras

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.storage import read_object
from finetune.depth.build import Training, build_training, images_per_step
from finetune.depth.metrics import DepthValidation, MapMaker
from finetune.depth.pairs import VALIDATION, DepthData, gray_source, open_data
from finetune.depth.settings import DepthConfig
from finetune.depth.trained import DEPTH_FILE, GENERATOR, REVERSE
from simclr_tf.checkpoints.keras_file import check_keras_file
from simclr_tf.checkpoints.store import CheckpointStore
from simclr_tf.optim.schedules import steps_per_epoch
from simclr_tf.training import distribution
from simclr_tf.training.batches import local_batch_size
from simclr_tf.training.fit import LoopPlan
from simclr_tf.training.memory import (
    Load,
    check_memory,
    count_activations,
    memory_here,
    variable_bytes,
)
from simclr_tf.training.run_dir import TRAINING_FILES, RunDir
from simclr_tf.training.workers import check_images, check_settings

log = logging.getLogger(__name__)

# Settings that may change when a run goes on: they alter where, how fast and how much is told.
_FREE_TO_CHANGE = frozenset(
    """
    image_dir target_dir manifest real_manifest cache_dataset eval_batch_size keep_checkpoint_max
    sample_every distribute num_cpu_devices use_tpu tpu_name tpu_zone gcp_project master jit_compile
    steps_per_loop output overwrite
    """.split()
)

_OWN_FILES = (
    *TRAINING_FILES, "history.csv", "samples", GENERATOR, REVERSE, "result.json", DEPTH_FILE,
)  # fmt: skip


@dataclass(frozen=True)
class DepthDir(RunDir):
    """The folder of one run."""

    config_type: ClassVar[type[DepthConfig]] = DepthConfig
    flag: ClassVar[str] = "output"
    free_to_change: ClassVar[frozenset[str]] = _FREE_TO_CHANGE
    own_files: ClassVar[tuple[str, ...]] = _OWN_FILES
    handed_out: ClassVar[tuple[str, ...]] = (GENERATOR, REVERSE, "history.csv", "result.json")
    last_file: ClassVar[str] = DEPTH_FILE

    @property
    def samples(self) -> Path:
        """`samples/`: sheets of images, predictions and targets, `epoch_<n>.png`."""
        return self.path / "samples"

    @property
    def history_file(self) -> Path:
        """`history.csv`: a row per epoch."""
        return self.path / "history.csv"

    @property
    def result_file(self) -> Path:
        """`result.json`: errors of the chosen epoch by split and case."""
        return self.path / "result.json"

    @property
    def depth_file(self) -> Path:
        """`depth.json`, written last: where it is, the run is complete."""
        return self.path / DEPTH_FILE

    def is_complete(self) -> bool:
        """True if the run was trained and measured, and its outputs can still be read."""
        if not self.is_whole():
            return False
        try:
            check_keras_file(self.path / GENERATOR)
            if (self.path / REVERSE).exists():
                check_keras_file(self.path / REVERSE)
            for file in (self.depth_file, self.result_file):
                if file.exists():
                    read_object(file)
        except (UserError, OSError) as error:
            log.warning("%s; what the run hands out is made anew", error)
            return False
        return True


_CYCLE_PASSES = 6  # of generators for each image: there, back, and the identity, both ways


@dataclass(frozen=True)
class DepthSession:
    """An opened run.

    Attributes:
        config: All settings.
        folder: Where the run is kept.
        devices: The devices that it runs on.
        precision: Keras dtype policy of the networks.
        data: The images.
        training: The networks and what trains them.
        plan: How far to train; an interval is an epoch.
        store: The run's checkpoints.
        validation: Errors of depth on validation; None if there is nothing to validate by.
        claim: Keeps other processes out of the folder until it is closed.
    """

    config: DepthConfig
    folder: DepthDir
    devices: distribution.Devices
    precision: str
    data: DepthData
    training: Training
    plan: LoopPlan
    store: CheckpointStore
    validation: DepthValidation | None
    claim: ExitStack = field(default_factory=ExitStack)

    @property
    def validates(self) -> bool:
        """True if there are depth maps to choose the best epoch by."""
        return self.validation is not None

    @property
    def best(self) -> Path:
        """Folder of the checkpoint that validated best."""
        return self.folder.best

    @property
    def images_per_step(self) -> int:
        """Images that a step sees, over all replicas."""
        return images_per_step(self.config)

    def last_step(self) -> int:
        """The step at which training ends: as planned, or where early stopping has ended it."""
        return self.folder.early_stop() or self.plan.total_steps


def open_session(
    config: DepthConfig, manifest: Manifest, devices: distribution.Devices
) -> DepthSession:
    """Opens a run: images, networks, folder.

    Args:
        config: All settings.
        manifest: From `open_manifest`.
        devices: The devices that it runs on.

    Returns:
        The opened run, whose `claim` must be closed.

    Raises:
        UserError: Something asked for is impossible; nothing has been overwritten then.
    """
    with ExitStack() as claim:
        session = _opened(config, manifest, devices, claim)
        return replace(session, claim=claim.pop_all())


def _opened(
    config: DepthConfig, manifest: Manifest, devices: distribution.Devices, claim: ExitStack
) -> DepthSession:
    precision = distribution.choose_precision(config.machine.precision, devices)
    log.info("%s, %s", devices.describe(), precision)
    local_batch_size(config.train.train_batch_size, devices, "train_batch_size")
    check_settings(devices, config)
    data = open_data(config, manifest)
    check_images(devices, data.train.identity, manifest)
    plan = _plan(config, data, devices)
    training = build_training(config, data.size, devices, precision, plan.total_steps)
    validation = _validation(config, data, devices, training.generator)
    if config.train.early_stopping_patience and validation is None:
        raise UserError(
            "there is no validation split to judge by", setting="early_stopping_patience"
        )
    if config.machine.memory_check:
        _check_memory(config, data, devices, training)
    folder = DepthDir(Path(config.run.output))
    if devices.is_chief:  # whatever can be refused has been by now
        claim.enter_context(folder.claim())
        _prepare_folder(folder, config, data, f"{devices.describe()}, {precision}")
    store = CheckpointStore(
        folder.path,
        training.generator,
        training.optimizer,
        config.train.keep_checkpoint_max,
        devices.is_chief,
        training.checkpoint_variables(),
    )
    return DepthSession(config, folder, devices, precision, data, training, plan, store, validation)


def _check_memory(
    config: DepthConfig, data: DepthData, devices: distribution.Devices, training: Training
) -> None:
    """Refuses what by an estimate cannot fit in memory; judges are small beside generators."""
    generator = training.generator
    activations = count_activations(
        partial(generator, training=False), data.size, 1, generator.trainable_variables
    )
    networks = training.networks.values()
    trained = variable_bytes(v for network in networks for v in network.trainable_variables)
    load = Load(
        activations,
        variable_bytes(v for network in networks for v in network.variables) + 2 * trained,
        trained,
        round((data.size[0] * data.size[1]) ** 0.5),
        1,
        config.train.train_batch_size,
        views=_CYCLE_PASSES if training.reverse is not None else 1,
        replicas=devices.num_replicas // devices.num_workers,
        shared=devices.kind == "CPU",
    )
    check_memory(load, memory_here(devices), ("train_batch_size",))


def _plan(config: DepthConfig, data: DepthData, devices: distribution.Devices) -> LoopPlan:
    interval = steps_per_epoch(data.train.num_examples, images_per_step(config))
    return LoopPlan(
        config.train.train_steps or config.train.train_epochs * interval,
        interval,
        distribution.choose_steps_per_loop(config.machine.steps_per_loop, devices),
    )


def _validation(
    config: DepthConfig,
    data: DepthData,
    devices: distribution.Devices,
    generator: keras.Model,
) -> DepthValidation | None:
    part = data.part(VALIDATION)
    if config.to_real or part is None:
        return None
    maker = MapMaker(
        partial(generator, training=False), data.size, devices, config.train.eval_batch_size
    )
    source = gray_source(part.manifest, config.data.cache_dataset)
    return DepthValidation(part, source, maker, data.limits)


def _prepare_folder(folder: DepthDir, config: DepthConfig, data: DepthData, machine: str) -> None:
    if folder.prepare(config):
        folder.refuse_other_images(data.train.identity, data.manifest)
        folder.remove_halves()
    folder.write_settings(config)
    folder.write_manifest(data.manifest)
    folder.write_environment({"data_identity": data.train.identity, "machine": machine})
