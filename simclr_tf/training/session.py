"""Everything a run is made of, opened and checked before anything is trained."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_prep.augment.views import ViewConfig, skipped_for_channels
from simclr_tf.checkpoints.load import Checkpoint
from simclr_tf.checkpoints.preprocessing import Preprocessing
from simclr_tf.checkpoints.store import CheckpointStore, model_keys
from simclr_tf.config.run_config import RunConfig
from simclr_tf.methods.base import Pretraining, extension_of
from simclr_tf.models.backbone import StagedBackbone
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.optim.schedules import checkpoint_interval, run_steps
from simclr_tf.training import distribution
from simclr_tf.training.batches import PREFETCH, PREFETCH_LARGE, local_batch_size
from simclr_tf.training.build import (
    TrainingParts,
    build_seeded,
    small_view_config,
    view_config,
    weighted_backbone,
)
from simclr_tf.training.data import RunData, open_data
from simclr_tf.training.evaluator import Evaluator
from simclr_tf.training.fit import LoopPlan
from simclr_tf.training.from_checkpoint import Origins, open_origins
from simclr_tf.training.gradients import check_size
from simclr_tf.training.memory import (
    Load,
    check_memory,
    count_activations,
    memory_here,
    variable_bytes,
)
from simclr_tf.training.run_dir import EVALUATION, RunDir
from simclr_tf.training.workers import check_images, check_settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """An opened run.

    Attributes:
        config: All settings.
        run_dir: The folder of the run.
        devices: The devices that it runs on.
        data: The images, by split.
        views: The augmentation.
        model: The network, built and frozen.
        parts: Method, optimizer, weight decay.
        plan: Steps to train, between checkpoints and between looks at the host.
        store: The run's checkpoints.
        evaluator: The network's outputs over a split.
        start: Checkpoint to start from; None for fresh weights.
        weighted: Network of keras.applications whose weights the backbone starts from; None for
            fresh ones.
        claim: Keeps other processes out of the folder until it is closed.
    """

    config: RunConfig
    run_dir: RunDir
    devices: distribution.Devices
    data: RunData
    views: ViewConfig
    model: SimCLRModel
    parts: TrainingParts
    plan: LoopPlan
    store: CheckpointStore
    evaluator: Evaluator
    start: Checkpoint | None
    weighted: StagedBackbone | None = None
    claim: ExitStack = field(default_factory=ExitStack)

    def last_step(self) -> int:
        """The step at which training ends: as planned, or where early stopping has ended it."""
        return self.run_dir.early_stop() or self.plan.total_steps


def open_session(config: RunConfig, origins: Origins | None = None) -> Session:
    """Opens a run: devices, images, folder, network.

    Args:
        config: All settings; `run.model_dir` must be given.
        origins: The networks that the run takes from, opened; None = they are opened here.

    Returns:
        The opened run, whose `claim` must be closed; its folder holds settings, environment and
        manifest.

    Raises:
        UserError: Something asked for is impossible; nothing has been overwritten then.
    """
    with ExitStack() as claim:
        session = _opened(config, origins or open_origins(config), claim)
        return replace(session, claim=claim.pop_all())


def _opened(config: RunConfig, origins: Origins, claim: ExitStack) -> Session:
    run_dir = RunDir(Path(config.run.model_dir))
    config = run_dir.as_begun(config)
    devices = distribution.connect(config.machine)
    precision = distribution.choose_precision(config.machine.precision, devices)
    log.info("%s, %s", devices.describe(), precision)
    check_settings(devices, config)
    data = open_data(config, origins.teacher)
    check_images(devices, data.identity, data.manifest, data.image_files())
    if config.train.mode != "train":
        data.evaluation(config.data.eval_split)
    rows = local_batch_size(config.train.train_batch_size, devices, "train_batch_size")
    check_size(config.train.microbatch, rows)
    views = view_config(config, data.channels)
    _say_skipped(views)
    weighted = weighted_backbone(config)
    classes, examples = len(data.class_names), data.train.num_examples
    model, parts = build_seeded(config, devices, data.channels, classes, examples, origins.teacher)
    if config.machine.memory_check and config.train.mode != "eval":
        check_memory(_load(config, devices, data, model, parts), memory_here(devices),
                     _memory_flags(config))  # fmt: skip
    model.encoder.preprocessing = Preprocessing.of_training(
        views, data.class_names, data.reading, data.files
    ).record()
    if devices.is_chief:  # whatever can be refused has been by now
        trains = config.train.mode != "eval"
        claim.enter_context(run_dir.claim("" if trains else EVALUATION))
        # An evaluation may go on beside the training, whose files it leaves alone.
        kept = RunConfig.from_values({**config.values(), "overwrite": False})
        goes_on = run_dir.prepare(config if trains else kept)
        if goes_on:
            run_dir.refuse_other_images(data.identity, data.manifest)
            run_dir.remove_halves(trains)
        if trains:
            facts = {"devices": devices.describe(), "precision": precision}
            _write_facts(run_dir, config, data, facts)
            run_dir.write_record(model.encoder.preprocessing)
    store = CheckpointStore(
        run_dir.path,
        model,
        parts.optimizer,
        config.train.keep_checkpoint_max,
        devices.is_chief,
        {**model_keys(model), **extension_of(parts.method).checkpoint_variables()},
    )
    return Session(
        config=config,
        run_dir=run_dir,
        devices=devices,
        data=data,
        views=views,
        model=model,
        parts=parts,
        plan=_plan(config, data, devices, parts),
        store=store,
        evaluator=Evaluator(
            model,
            views,
            devices,
            config.train.eval_batch_size,
            config.machine.seed,
            config.train.eval_crops,
        ),
        start=origins.start,
        weighted=weighted,
    )


def _load(
    config: RunConfig,
    devices: distribution.Devices,
    data: RunData,
    model: SimCLRModel,
    parts: TrainingParts,
) -> Load:
    """Memory load of training."""
    size, pretrain = config.views.image_size, config.train.train_mode == "pretrain"
    activations = count_activations(
        lambda images: model(images, training=False), size, data.channels, model.trainable_variables
    )
    variables = variable_bytes([*model.variables, *parts.optimizer.variables])
    if isinstance(parts.method, Pretraining):  # a second network, that follows the first
        followers = parts.method.encoders[1:]
        variables += variable_bytes(v for encoder in followers for v in encoder.variables)
    small = small_view_config(config, data.channels)
    sources = {id(source): source for source in (data.train, *data.splits.values())}
    return Load(
        activations,
        variables,
        variable_bytes(model.trainable_variables),
        size,
        data.channels,
        config.train.train_batch_size,
        views=2 if pretrain else 1,
        microbatch=config.train.microbatch,
        replicas=devices.num_replicas // devices.num_workers,
        shared=devices.kind == "CPU",
        extra=small.num_views * (small.image_size / size) ** 2 if small else 0.0,
        cache=sum(getattr(source, "cache_bytes", 0) for source in sources.values()),
        batches=PREFETCH_LARGE if config.train.microbatch else PREFETCH,
        pixel=data.train.image_dtype.size,
    )


def _memory_flags(config: RunConfig) -> tuple[str, ...]:
    flags = ("train_batch_size", "image_size")
    return ("microbatch", *flags) if config.train.train_mode == "pretrain" else flags


def _say_skipped(views: ViewConfig) -> None:
    skipped = skipped_for_channels(views)
    if skipped:
        log.info(
            "images of %d channel(s): %s left out, for they need colour",
            views.channels,
            ", ".join(skipped),
        )


def _write_facts(run_dir: RunDir, config: RunConfig, data: RunData, facts: dict[str, Any]) -> None:
    run_dir.write_settings(config)
    if data.manifest is not None:
        run_dir.write_manifest(data.manifest)
    identity = {"data_identity": data.identity, "class_names": list(data.class_names)}
    run_dir.write_environment({**identity, **facts})


def _plan(
    config: RunConfig, data: RunData, devices: distribution.Devices, parts: TrainingParts
) -> LoopPlan:
    t = config.train
    interval = checkpoint_interval(
        data.train.num_examples, t.train_batch_size, t.checkpoint_epochs, t.checkpoint_steps
    )
    # Steps counted by epochs run on to the next checkpoint, as in the reference.
    total = t.train_steps or run_steps(parts.total_steps, interval)
    per_loop = distribution.choose_steps_per_loop(config.machine.steps_per_loop, devices)
    return LoopPlan(total, interval, per_loop)
