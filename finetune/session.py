"""Everything a run of a classifier is made of, opened and checked before anything is trained."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import keras

from data_prep.errors import UserError
from data_prep.names import clean_name
from finetune.classifier import Classifier
from finetune.config import ClassifierConfig
from finetune.data import VALIDATION, LabelledData, open_labelled
from finetune.epoch_scores import FeatureScorer, ImageScorer
from finetune.head_start import learning_rate
from finetune.inputs import ImageSteps, skipped
from finetune.method import Classification
from finetune.recipe import Recipe
from finetune.run_folder import ClassifierDir
from simclr_tf.checkpoints.store import CheckpointStore
from simclr_tf.losses.supervised import balanced_weights
from simclr_tf.losses.weight_decay import WeightDecay, decayed_variables
from simclr_tf.models.fingerprint import variables_hash
from simclr_tf.optim.factory import build_optimizer
from simclr_tf.optim.layerwise import decayed_rates
from simclr_tf.optim.schedules import (
    WarmUpAndConstant,
    WarmUpAndCosineDecay,
    steps_per_epoch,
    warmup_steps,
)
from simclr_tf.training import distribution
from simclr_tf.training.batches import local_batch_size
from simclr_tf.training.loop import LoopPlan
from simclr_tf.training.memory import (
    Load,
    check_memory,
    count_activations,
    memory_here,
    variable_bytes,
)
from simclr_tf.training.step import TrainStep
from simclr_tf.training.workers import check_images, check_settings

log = logging.getLogger(__name__)

HEAD = "classifier's head"
_FEATURE_STEPS = 50  # steps on features between two looks at the host: they take a millisecond


@dataclass(frozen=True)
class ClassifierSession:
    """An opened run.

    Attributes:
        config: All settings.
        recipe: What the command brings.
        folder: Where the run is kept.
        devices: What it runs on.
        precision: Keras dtype policy of the network.
        data: The images, by split.
        steps: What becomes of them.
        model: The classifier, built and frozen.
        step: A training step.
        scorer: Gives the logits of whole splits.
        plan: How far to train; an interval is an epoch.
        store: The run's checkpoints.
        remarks: What a reader of the numbers must know.
        claim: Keeps other processes out of the folder until it is closed.
    """

    config: ClassifierConfig
    recipe: Recipe
    folder: ClassifierDir
    devices: distribution.Devices
    precision: str
    data: LabelledData
    steps: ImageSteps
    model: Classifier
    step: TrainStep
    scorer: ImageScorer | FeatureScorer
    plan: LoopPlan
    store: CheckpointStore
    remarks: tuple[str, ...] = ()
    claim: ExitStack = field(default_factory=ExitStack)

    @property
    def validates(self) -> bool:
        """Whether there are labelled images to choose the best epoch by."""
        return self.data.has_labels(VALIDATION)

    @property
    def best(self) -> Path:
        """Folder of the checkpoint that validated best."""
        return self.folder.best

    def last_step(self) -> int:
        """Where training ends: as planned, or where early stopping has ended it."""
        return self.folder.early_stop() or self.plan.total_steps


def open_session(config: ClassifierConfig, recipe: Recipe) -> ClassifierSession:
    """Opens a run: devices, images, folder, network.

    Args:
        config: All settings.
        recipe: What the command brings.

    Returns:
        The opened run, whose `claim` must be closed; its folder holds settings, environment and
        manifest.

    Raises:
        UserError: Something asked for is impossible; nothing has been overwritten then.
    """
    with ExitStack() as claim:
        session = _opened(config, recipe, claim)
        return replace(session, claim=claim.pop_all())


def _opened(config: ClassifierConfig, recipe: Recipe, claim: ExitStack) -> ClassifierSession:
    if not config.run.output:
        raise UserError("--output is missing: say where the run is to be kept")
    folder = recipe.folder(Path(config.run.output))
    config = folder.as_begun(config)
    devices = distribution.connect(config.machine)
    precision = distribution.choose_precision(config.machine.precision, devices)
    log.info("%s, %s", devices.describe(), precision)
    if config.train.train_batch_size:
        local_batch_size(config.train.train_batch_size, devices, "train_batch_size")
    check_settings(devices, config)
    data = open_labelled(config.data, config.reading, config.loss.sampling)
    check_images(devices, data.train.identity, data.manifest)
    config = config.suited(data.train.num_examples)
    local_batch_size(config.train.train_batch_size, devices, "train_batch_size")
    _check(config, data)
    remarks = recipe.look(data)
    for text in remarks:
        log.warning("%s", text)
    steps = recipe.images(data.channels)
    if left_out := skipped(steps):
        log.info("images of %d channel(s): %s left out", data.channels, ", ".join(left_out))
    keras.utils.set_random_seed(config.machine.seed)
    keras.config.set_dtype_policy(precision)
    try:
        with devices.strategy.scope():
            model = recipe.build(data.channels, len(data.class_names))
            frozen = not model.backbone.trainable_variables
            rate = learning_rate(config, recipe, model, frozen and not steps.augments)
            config = replace(config, optimizer=replace(config.optimizer, learning_rate=rate))
            optimizer, decay = optimization(config, recipe, model, data.train.num_examples)
    finally:
        keras.config.set_dtype_policy("float32")
    if config.machine.memory_check:
        _check_memory(config, devices, data, model, optimizer)
    model.facts = recipe.record(data, steps)
    scorer = _scorer(config, model, data, steps, devices)
    folder = folder.suited(data.train.num_examples)
    if devices.is_chief:  # whatever can be refused has been by now
        claim.enter_context(folder.claim())
        _prepare_folder(folder, config, data, f"{devices.describe()}, {precision}")
        folder.write_record(model.facts)
    from_features = isinstance(scorer, FeatureScorer)
    method = Classification(
        model,
        config.loss,
        _weights(config, data),
        optimizer.iterations,
        config.machine.seed,
        from_features,
    )
    step = TrainStep(
        model,
        method,
        optimizer,
        decay,
        steps.photometry,
        devices,
        distribution.choose_jit(config.machine.jit_compile, devices),
    )
    return ClassifierSession(
        config=config,
        recipe=recipe,
        folder=folder,
        devices=devices,
        precision=precision,
        data=data,
        steps=steps,
        model=model,
        step=step,
        scorer=scorer,
        plan=_plan(config, data, devices, from_features),
        store=CheckpointStore(
            folder.path,
            model,
            optimizer,
            config.train.keep_checkpoint_max,
            devices.is_chief,
            recipe.keys(model),
        ),
        remarks=remarks,
    )


def _check_memory(
    config: ClassifierConfig,
    devices: distribution.Devices,
    data: LabelledData,
    model: Classifier,
    optimizer: keras.optimizers.Optimizer,
) -> None:
    """Refuses what by an estimate cannot fit in memory."""
    size = int(config.values()["image_size"])
    activations = count_activations(
        lambda images: model(images, training=False), size, data.channels, model.trainable_variables
    )
    load = Load(
        activations,
        variable_bytes([*model.variables, *optimizer.variables]),
        variable_bytes(model.trainable_variables),
        size,
        data.channels,
        config.train.train_batch_size,
        views=1,
        replicas=devices.num_replicas // devices.num_workers,
        shared=devices.kind == "CPU",
        cache=data.train.cache_bytes,
    )
    check_memory(load, memory_here(devices), ("train_batch_size", "image_size"))


def _check(config: ClassifierConfig, data: LabelledData) -> None:
    if config.train.early_stopping_patience and not data.has_labels(VALIDATION):
        raise UserError(
            "--early_stopping_patience: there is no labelled validation split to judge by"
        )
    if config.measure.positive and clean_name(config.measure.positive) not in data.class_names:
        raise UserError(
            f"--positive={config.measure.positive}: is none of the classes "
            f"{', '.join(data.class_names[:12])}"
        )
    two = len(data.class_names) == 2
    if (config.measure.positive or config.measure.fixed_threshold() is not None) and not two:
        raise UserError(
            f"--positive and --threshold are for two classes; there are {len(data.class_names)}"
        )


def _prepare_folder(
    folder: ClassifierDir, config: ClassifierConfig, data: LabelledData, machine: str
) -> None:
    if folder.prepare(config):
        folder.refuse_other_images(data.train.identity, data.manifest)
        folder.remove_halves()
    folder.write_settings(config)
    folder.write_manifest(data.manifest)
    folder.write_environment(
        {
            "data_identity": data.train.identity,
            "class_names": list(data.class_names),
            "machine": machine,
        }
    )


def optimization(
    config: ClassifierConfig, recipe: Recipe, model: Classifier, images: int
) -> tuple[keras.optimizers.Optimizer, WeightDecay]:
    """Optimizer, built on what trains, and the L2 term of the loss."""
    o, batch = config.optimizer, config.train.train_batch_size
    warmup = warmup_steps(images, batch, o.warmup_epochs)
    schedule = WarmUpAndConstant(o.learning_rate, warmup)
    if o.schedule == "cosine":
        schedule = WarmUpAndCosineDecay(o.learning_rate, warmup, _total_steps(config, images))
    trainable, head = model.trainable_variables, model.head.trainable_variables
    optimizer = build_optimizer(
        o.optimizer,
        schedule,
        momentum=o.momentum,
        weight_decay=o.weight_decay,
        supervised_head=head,
        variables=trainable,
        rate_factors=None if o.layer_decay == 1 else rate_factors(recipe, model, o.layer_decay),
    )
    vectors = [v for v in trainable if len(v.shape) <= 1]
    decayed = decayed_variables(o.optimizer, trainable, head, vectors)
    return optimizer, WeightDecay(decayed, o.weight_decay)


def rate_factors(recipe: Recipe, model: Classifier, decay: float) -> dict[int, float]:
    """Factor on the learning rate of every trained variable, by `id`: the head has 1."""
    groups = [
        [v for layer in layers for v in layer.trainable_variables]
        for layers in recipe.parts(model).values()
    ]
    return dict(decayed_rates([*groups, model.head.trainable_variables], decay))


def _weights(config: ClassifierConfig, data: LabelledData) -> list[float] | None:
    if config.loss.class_weights == "none":
        return None
    weights = balanced_weights(data.train.labels(), len(data.class_names))
    said = (f"{n} {w:.3g}" for n, w in zip(data.class_names, weights, strict=True))
    log.info("class weights: %s", ", ".join(said))
    return weights


def _scorer(
    config: ClassifierConfig,
    model: Classifier,
    data: LabelledData,
    steps: ImageSteps,
    devices: distribution.Devices,
) -> ImageScorer | FeatureScorer:
    wanted, frozen = config.train.cache_features, not model.backbone.trainable_variables
    if wanted == "true" and not (frozen and not steps.augments):
        raise UserError(
            "--cache_features=true: training features would change; freeze the whole backbone and "
            "add --augment=none"
        )
    kept = wanted != "false" and frozen and not steps.augments
    kind = FeatureScorer if kept else ImageScorer
    return kind(model, data, steps, devices, config.train.eval_batch_size)


def _total_steps(config: ClassifierConfig, images: int) -> int:
    t = config.train
    return t.train_steps or t.train_epochs * steps_per_epoch(images, t.train_batch_size)


def _plan(
    config: ClassifierConfig,
    data: LabelledData,
    devices: distribution.Devices,
    from_features: bool,
) -> LoopPlan:
    images, batch = data.train.num_examples, config.train.train_batch_size
    per_loop = config.machine.steps_per_loop
    if not per_loop and from_features:
        per_loop = _FEATURE_STEPS
    return LoopPlan(
        _total_steps(config, images),
        steps_per_epoch(images, batch),
        distribution.choose_steps_per_loop(per_loop, devices),
    )


def part_hashes(session: ClassifierSession) -> dict[str, str]:
    """Hash of every part's weights and statistics; all workers must call it."""
    parts = {
        name: [v for layer in layers for v in layer.variables]
        for name, layers in session.recipe.parts(session.model).items()
    }
    parts[HEAD] = session.model.head.variables
    return {name: variables_hash(variables) for name, variables in parts.items() if variables}
