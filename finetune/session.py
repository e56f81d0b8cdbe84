"""The parts of a classifier's run, opened and checked before anything is trained.

The head of a new run can begin as a linear probe (`start_head`). A head drawn at random sends
meaningless gradients through a pretrained network and spoils its features before the head has
learnt anything (Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution); one that begins as a linear probe has little to correct.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

import keras
import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.names import clean_name
from data_prep.page import Section
from data_prep.phrases import format_seconds
from data_prep.storage import read_object
from finetune.classifier import Classification, Classifier
from finetune.config import ClassifierConfig, FinetuneConfig
from finetune.data import VALIDATION, LabeledData, open_labeled
from finetune.epoch_scores import FeatureScorer, ImageScorer, split_scores
from finetune.inputs import ImageSteps, skipped
from finetune.report.files import FLOORS as FLOORS_FILE
from finetune.report.files import REPORT, RESULT_FILES
from finetune.report.page import REPORT_PAGE
from simclr_tf.checkpoints.keras_file import check_keras_file
from simclr_tf.checkpoints.preprocessing import Preprocessing
from simclr_tf.checkpoints.store import CheckpointStore
from simclr_tf.evaluation.linear_probe import LinearProbe, Score, fit_linear_probe
from simclr_tf.losses.supervised import balanced_weights
from simclr_tf.losses.weight_decay import WeightDecay, decayed_variables
from simclr_tf.models.weights import variables_hash
from simclr_tf.optim.factory import build_optimizer, decayed_rates
from simclr_tf.optim.schedules import (
    WarmUpAndConstant,
    WarmUpAndCosineDecay,
    steps_per_epoch,
    warmup_steps,
)
from simclr_tf.training import distribution
from simclr_tf.training.batches import local_batch_size
from simclr_tf.training.evaluator import ImageOutputs
from simclr_tf.training.fit import LoopPlan
from simclr_tf.training.memory import (
    Load,
    check_memory,
    count_activations,
    memory_here,
    variable_bytes,
)
from simclr_tf.training.run_dir import TRAINING_FILES, RunDir
from simclr_tf.training.run_warnings import WARNINGS_FILE
from simclr_tf.training.step import TrainStep
from simclr_tf.training.workers import check_images, check_settings

log = logging.getLogger(__name__)

# Settings that may change when a run goes on: they alter where, how fast and how much is told.
_FREE_TO_CHANGE = frozenset(
    """
    image_dir manifest cache_dataset eval_batch_size keep_checkpoint_max distribute num_cpu_devices
    use_tpu tpu_name tpu_zone gcp_project master jit_compile steps_per_loop output overwrite floors
    """.split()
)

_OWN_FILES = (
    *TRAINING_FILES, "blocks.json", "preprocessing.json", "model.keras", "saved_model", "views.png",
    FLOORS_FILE, WARNINGS_FILE, REPORT_PAGE, *RESULT_FILES,
)  # fmt: skip

_HANDED_OUT = ("model.keras", "saved_model", "views.png", FLOORS_FILE, *RESULT_FILES)


@dataclass(frozen=True)
class ClassifierDir(RunDir):
    """The folder of one run; subclasses name the settings of their command."""

    config_type: ClassVar[type[ClassifierConfig]] = FinetuneConfig
    flag: ClassVar[str] = "output"
    free_to_change: ClassVar[frozenset[str]] = _FREE_TO_CHANGE
    own_files: ClassVar[tuple[str, ...]] = _OWN_FILES
    handed_out: ClassVar[tuple[str, ...]] = _HANDED_OUT
    last_file: ClassVar[str] = REPORT_PAGE

    def suited(self, _images: int) -> Self:
        """The folder, knowing the settings chosen for a number of training images."""
        return self

    @property
    def model_file(self) -> Path:
        """`model.keras`: the classifier, from images in [0, 1] to probabilities."""
        return self.path / "model.keras"

    @property
    def report_page(self) -> Path:
        """`report.html`, written last: where it is, the run is complete."""
        return self.path / REPORT_PAGE

    def is_complete(self) -> bool:
        """True if the run was trained and reported, and its outputs can still be read."""
        if not self.is_whole():
            return False
        try:
            check_keras_file(self.model_file)
            read_object(self.path / REPORT)
        except (UserError, OSError) as error:
            log.warning("%s; what the run hands out is made anew", error)
            return False
        return True


@dataclass(frozen=True)
class ClassifierJob:
    """The part of a run that commands differ in.

    Attributes:
        build: (channels, classes) -> the classifier, built, and frozen where it is to be. Called
            under the strategy and the precision of the run, and once more without them for the
            export.
        start: Sets the starting weights of a new run, if `build` does not.
        parts: The backbone's layers by part, from the input to the output: what layer-wise rates
            and the account of what moved go by. Names are words.
        keys: All variables of a classifier by their checkpoint keys.
        images: channels -> what becomes of images.
        program: Name of the command.
        title: Of the report.
        about: Description of model and training, sentences for the report.
        settings: Settings for the report, beside those that differ from their defaults.
        folder: Kind of run folder.
        look: Looks at the data before anything is written: what a reader of the numbers must know.
        pretrained: Whether the backbone begins with weights that know something.
        fresh: (channels, classes) -> the classifier with weights drawn at random; None = `build`
            gives that, before `start`.
        new_head: Whether the head of a new run begins anew; else `start` has set it.
        sections: (the run, its classifier as handed out) -> more sections of the report.
    """

    build: Callable[[int, int], Classifier]
    parts: Callable[[Classifier], Mapping[str, Sequence[keras.layers.Layer]]]
    keys: Callable[[Classifier], dict[str, tf.Variable]]
    images: Callable[[int], ImageSteps]
    program: str
    title: str
    about: Callable[[Classifier], tuple[str, ...]]
    settings: Mapping[str, str] = field(default_factory=dict)
    folder: type[ClassifierDir] = ClassifierDir
    start: Callable[[Classifier], None] = lambda model: None
    look: Callable[[LabeledData], tuple[str, ...]] = lambda data: ()
    pretrained: bool = True
    fresh: Callable[[int, int], Classifier] | None = None
    new_head: bool = True
    sections: Callable[["ClassifierSession", Classifier], tuple[Section, ...]] = (
        lambda session, model: ()
    )


def plain_keys(model: Classifier) -> dict[str, tf.Variable]:
    """Checkpoint keys for a backbone that has no names of its own: variables by number."""
    return {f"classifier/variables/{i}": v.value for i, v in enumerate(model.variables)}


_RATE = 1e-3
_PROBE_RATE = 3e-5  # from a fitted head on, 0.001 goes far beyond it and fits noise
_LEAST_DEVIATION = 0.05  # of the root mean square
_MOST_IMAGES = 5000  # of a probe: more change little and take minutes
_MOST_WEIGHTS = 500_000


def begins_as_probe(config: ClassifierConfig, recipe: ClassifierJob, model: Classifier) -> bool:
    """Returns True if the settings let the head of a new run begin as a linear probe.

    Args:
        config: All settings.
        recipe: The part of the run that is the command's own.
        model: The classifier, built.
    """
    asked = config.head.head_start
    wanted = asked == "probe" or (asked == "auto" and recipe.pretrained)
    return recipe.new_head and wanted and not model.head.hidden


def learning_rate(
    config: ClassifierConfig, recipe: ClassifierJob, model: Classifier, fixed_features: bool
) -> float:
    """The learning rate that is given, or that suits the head where it is left open.

    Args:
        config: All settings.
        recipe: The part of the run that is the command's own.
        model: The classifier, built.
        fixed_features: Whether an image has the same features in every epoch.
    """
    if config.optimizer.learning_rate or not recipe.new_head:  # a second stage says its own
        return config.optimizer.learning_rate
    fitted = begins_as_probe(config, recipe, model) and not _too_large(model)
    return _PROBE_RATE if fitted and fixed_features else _RATE


def _too_large(model: Classifier) -> bool:
    """Returns True if a probe of the head's weights would take too long."""
    return int(np.prod(model.head.output_layer.kernel.shape)) > _MOST_WEIGHTS


def start_head(session: "ClassifierSession") -> None:
    """Sets scaling and weights of the head of a new run, as the settings ask for.

    All workers must call it.

    Args:
        session: The run; its backbone has its starting weights.
    """
    head = session.model.head
    wanted = begins_as_probe(session.config, session.recipe, session.model)
    if head.scaling is None and not wanted:
        return
    began = time.perf_counter()
    known = session.scorer.features(session.data.train_split)
    if not np.isfinite(known.features).all():
        log.warning("the network's features are not finite: the head starts at random")
        return
    if head.scaling is not None:
        head.scaling.set_statistics(known.features)
    if wanted:
        _start_from_probe(session, known)
    took = format_seconds(time.perf_counter() - began)
    log.info("the head starts from the features of the training images (%s)", took)


def _start_from_probe(session: "ClassifierSession", known: ImageOutputs) -> None:
    head, config = session.model.head, session.config
    rows = np.flatnonzero(known.label >= 0)
    if len(rows) > _MOST_IMAGES:
        rng = np.random.default_rng(config.machine.seed)
        rows = np.sort(rng.choice(rows, _MOST_IMAGES, replace=False))
    if _too_large(session.model) or len(np.unique(known.label[rows])) < 2:
        weights = known.features.shape[1] * head.num_classes
        log.info("the head starts at random: a linear probe of %s weights is left out",
                 f"{weights:,}")  # fmt: skip
        return
    probe = fit_linear_probe(
        known.features[rows],
        known.label[rows],
        num_classes=head.num_classes,
        seed=config.machine.seed,
        balanced="balanced" in (config.loss.class_weights, config.loss.sampling),
        score=_monitored(config.train.monitor),
    )
    frozen = not session.model.backbone.trainable_variables
    if not frozen or session.steps.augments:
        probe = bounded(probe, known.features[rows])
    head.start_from(probe)
    log.info("the head starts as a logistic regression with C=%.2g, temperature %.2g",
             probe.strength, probe.temperature)  # fmt: skip


def _monitored(monitor: str) -> Score | None:
    """The score that chooses the best epoch, for probabilities; None if the likelihood does."""
    if monitor == "loss":
        return None
    return lambda labels, p: split_scores(np.log(np.maximum(p, 1e-12)), labels)[monitor]


def bounded(probe: LinearProbe, features: np.ndarray) -> LinearProbe:
    """The probe without weights that grow beyond bounds where features hardly vary.

    A collapsed network's features differ by a thousandth of their size, which a probe blows up;
    augmentation, or the statistics of a batch, move them by a hundredth, and the loss is in the
    hundreds. A feature's deviation is taken for a twentieth of its size at least.

    Args:
        probe: Fitted on the features.
        features: Of the training images, float [n, D].
    """
    size = np.sqrt(np.mean(features.astype(np.float64) ** 2, axis=0))
    return replace(probe, scale=np.maximum(probe.scale, _LEAST_DEVIATION * size))


HEAD = "classifier's head"
_FEATURE_STEPS = 50  # steps on features between two looks at the host: they take a millisecond


@dataclass(frozen=True)
class ClassifierSession:
    """An opened run.

    Attributes:
        config: All settings.
        recipe: The part of the run that is the command's own.
        folder: Where the run is kept.
        devices: The devices that it runs on.
        precision: Keras dtype policy of the network.
        data: The images, by split.
        steps: Steps from decoded image to network input.
        model: The classifier, built and frozen.
        step: A training step.
        scorer: Gives the logits of whole splits.
        plan: How far to train; an interval is an epoch.
        store: The run's checkpoints.
        remarks: Caveats for readers of the numbers.
        claim: Keeps other processes out of the folder until it is closed.
    """

    config: ClassifierConfig
    recipe: ClassifierJob
    folder: ClassifierDir
    devices: distribution.Devices
    precision: str
    data: LabeledData
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
        """True if there are labelled images to choose the best epoch by."""
        return self.data.has_labels(VALIDATION)

    @property
    def best(self) -> Path:
        """Folder of the checkpoint that validated best."""
        return self.folder.best

    def last_step(self) -> int:
        """The step at which training ends: as planned, or where early stopping has ended it."""
        return self.folder.early_stop() or self.plan.total_steps


def open_session(config: ClassifierConfig, recipe: ClassifierJob) -> ClassifierSession:
    """Opens a run: devices, images, folder, network.

    Args:
        config: All settings.
        recipe: The part of the run that is the command's own.

    Returns:
        The opened run, whose `claim` must be closed; its folder holds settings, environment and
        manifest.

    Raises:
        UserError: Something asked for is impossible; nothing has been overwritten then.
    """
    with ExitStack() as claim:
        session = _opened(config, recipe, claim)
        return replace(session, claim=claim.pop_all())


def _opened(config: ClassifierConfig, recipe: ClassifierJob, claim: ExitStack) -> ClassifierSession:
    if not config.run.output:
        raise UserError("is missing: say where the run is to be kept", setting="output")
    folder = recipe.folder(Path(config.run.output))
    config = folder.as_begun(config)
    devices = distribution.connect(config.machine)
    precision = distribution.choose_precision(config.machine.precision, devices)
    log.info("%s, %s", devices.describe(), precision)
    if config.train.train_batch_size:
        local_batch_size(config.train.train_batch_size, devices, "train_batch_size")
    check_settings(devices, config)
    data = open_labeled(config.data, config.reading, config.loss.sampling)
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
    preprocessing = Preprocessing.of_training(
        steps.views, data.class_names, data.reading, data.files
    )
    model.facts = preprocessing.record()
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
    data: LabeledData,
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


def _check(config: ClassifierConfig, data: LabeledData) -> None:
    if config.train.early_stopping_patience and not data.has_labels(VALIDATION):
        raise UserError(
            "there is no labelled validation split to judge by", setting="early_stopping_patience"
        )
    if config.measure.positive and clean_name(config.measure.positive) not in data.class_names:
        raise UserError(
            f"is none of the classes {', '.join(data.class_names[:12])}",
            setting="positive",
            value=config.measure.positive,
        )
    two = len(data.class_names) == 2
    if (config.measure.positive or config.measure.fixed_threshold() is not None) and not two:
        raise UserError(
            f"--positive and --threshold are for two classes; there are {len(data.class_names)}"
        )


def _prepare_folder(
    folder: ClassifierDir, config: ClassifierConfig, data: LabeledData, machine: str
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
    config: ClassifierConfig, recipe: ClassifierJob, model: Classifier, images: int
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


def rate_factors(recipe: ClassifierJob, model: Classifier, decay: float) -> dict[int, float]:
    """Factor on the learning rate of every trained variable, by `id`: the head has 1."""
    groups = [
        [v for layer in layers for v in layer.trainable_variables]
        for layers in recipe.parts(model).values()
    ]
    return dict(decayed_rates([*groups, model.head.trainable_variables], decay))


def _weights(config: ClassifierConfig, data: LabeledData) -> list[float] | None:
    if config.loss.class_weights == "none":
        return None
    weights = balanced_weights(data.train.labels(), len(data.class_names))
    said = (f"{n} {w:.3g}" for n, w in zip(data.class_names, weights, strict=True))
    log.info("class weights: %s", ", ".join(said))
    return weights


def _scorer(
    config: ClassifierConfig,
    model: Classifier,
    data: LabeledData,
    steps: ImageSteps,
    devices: distribution.Devices,
) -> ImageScorer | FeatureScorer:
    wanted, frozen = config.train.cache_features, not model.backbone.trainable_variables
    if wanted == "true" and not (frozen and not steps.augments):
        raise UserError(
            "training features would change; freeze the whole backbone and add --augment=none",
            setting="cache_features",
            value="true",
        )
    kept = wanted != "false" and frozen and not steps.augments
    kind = FeatureScorer if kept else ImageScorer
    return kind(model, data, steps, devices, config.train.eval_batch_size)


def _total_steps(config: ClassifierConfig, images: int) -> int:
    t = config.train
    return t.train_steps or t.train_epochs * steps_per_epoch(images, t.train_batch_size)


def _plan(
    config: ClassifierConfig,
    data: LabeledData,
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
