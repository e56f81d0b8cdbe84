"""From settings to the parts of a run: augmentation, network, start weights, method, optimizer."""

from dataclasses import dataclass
from typing import Any

import keras

from data_prep.augment.views import SMALL_IMAGE, ViewConfig, small_views
from data_prep.errors import UserError
from simclr_tf.checkpoints.adapt import StemAdapt, adapt_channels
from simclr_tf.checkpoints.load import Checkpoint, convert
from simclr_tf.config.run_config import RunConfig
from simclr_tf.losses.weight_decay import WeightDecay, decayed_variables
from simclr_tf.methods.base import Extension, Method, extension_of
from simclr_tf.methods.registry import METHODS, Recipe
from simclr_tf.methods.supervised import Distillation, Supervised
from simclr_tf.models.architectures import KerasArchitecture
from simclr_tf.models.backbone import StagedBackbone
from simclr_tf.models.keras_applications import build_trunk
from simclr_tf.models.keras_backbone import KerasBackbone
from simclr_tf.models.simclr import ProjectionPart, SimCLREncoder, SimCLRModel
from simclr_tf.models.variable_names import normalization_variables, supervised_head_variables
from simclr_tf.models.weights import freeze
from simclr_tf.optim.factory import build_optimizer
from simclr_tf.optim.schedules import (
    WarmUpAndCosineDecay,
    scaled_learning_rate,
    train_steps,
    warmup_steps,
)
from simclr_tf.training.distribution import Devices, choose_jit, choose_precision
from simclr_tf.training.step import TrainStep


def view_config(config: RunConfig, channels: int) -> ViewConfig:
    """The augmentation of a run: all of it in pretraining, crop and flips in fine-tuning."""
    if config.train.train_mode != "pretrain":
        return config.views.view_config(channels).for_finetuning()
    least_area = config.method.small_crop_area if _has_small_crops(config) else 0.0
    return config.views.view_config(channels, least_area=least_area)


def small_view_config(config: RunConfig, channels: int) -> ViewConfig | None:
    """The augmentation of the small crops beside a run's views; None if there are none."""
    if not _has_small_crops(config):
        return None
    m, views = config.method, view_config(config, channels)
    return small_views(views, config.small_crop_size, m.small_crops, m.small_crop_area)


def _has_small_crops(config: RunConfig) -> bool:
    pretrain = config.train.train_mode == "pretrain"
    return pretrain and config.method.method == "swav" and config.method.small_crops > 0


def check_image_sizes(backbone: StagedBackbone, config: RunConfig) -> None:
    """Refuses images, and small crops, that are too small for a backbone."""
    backbone.check_image_size(config.views.image_size)
    if _has_small_crops(config):
        backbone.check_image_size(config.small_crop_size, "small_crop_size")


def uses_cifar_stem(config: RunConfig) -> bool:
    """True if the network starts with the small-image stem: as set, or at 32 px or less."""
    stem = config.model.stem
    return stem == "cifar" or (stem == "auto" and config.views.image_size <= SMALL_IMAGE)


def build_model(config: RunConfig, channels: int, num_classes: int) -> SimCLRModel:
    """The network of a run, with fresh weights and frozen where the settings say.

    Args:
        config: Network, start and mode.
        channels: Of the images.
        num_classes: Of the supervised head; 0 = no head.

    Returns:
        The built model; under a strategy call this in its scope.
    """
    m = config.model
    encoder = SimCLREncoder(
        depth=m.resnet_depth,
        width_multiplier=m.width_multiplier,
        sk_ratio=m.sk_ratio,
        se_ratio=m.se_ratio,
        cifar_stem=uses_cifar_stem(config),
        backbone=config.backbone_options(uses_cifar_stem(config)),
        image_channels=channels,
        batch_norm_decay=m.batch_norm_decay,
        global_bn=m.global_bn,
        proj_head_mode=m.proj_head_mode,
        proj_out_dim=m.proj_out_dim,
        num_proj_layers=m.num_proj_layers,
    )
    check_image_sizes(encoder.backbone(), config)
    pretrain = config.train.train_mode == "pretrain"
    with_head = num_classes > 0 and (not pretrain or m.lineareval_while_pretraining)
    model = SimCLRModel(encoder, num_classes if with_head else None, m.ft_proj_selector)
    model.build((None, None, None, channels))
    freeze(
        model,
        config.start.fine_tune_after_block,
        train_blocks=config.train_blocks,
        unused_projection_head=pretrain or "unused_projection_head" in config.quirks,
        frozen_statistics_move=config.frozen_statistics_move,
    )
    return model


@dataclass(frozen=True)
class TrainingParts:
    """Method, optimizer and weight decay that train a network.

    Attributes:
        method: The losses.
        optimizer: Built on the network's trainable variables.
        weight_decay: The L2 term of the loss.
        total_steps: Steps of the schedule.
    """

    method: Method
    optimizer: keras.optimizers.Optimizer
    weight_decay: WeightDecay
    total_steps: int


def build_training(
    config: RunConfig, model: SimCLRModel, num_examples: int, teacher: Checkpoint | None = None
) -> TrainingParts:
    """Method, optimizer and weight decay of a run; under a strategy call this in its scope.

    Args:
        config: Mode, optimizer and schedule.
        model: The network, built and frozen.
        num_examples: Training images, which the schedule counts epochs by.
        teacher: The network that a student learns from; distillation needs it.
    """
    o, t = config.optimizer, config.train
    steps = train_steps(num_examples, t.train_batch_size, t.train_epochs, t.train_steps)
    schedule = WarmUpAndCosineDecay(
        peak=scaled_learning_rate(o.learning_rate, t.train_batch_size, o.learning_rate_scaling),
        warmup=warmup_steps(num_examples, t.train_batch_size, o.warmup_epochs),
        total_steps=steps,
    )
    method = _method(config, model, num_examples, steps, teacher)
    own = extension_of(method)
    variables = [*model.trainable_variables, *own.trainable_variables]
    head = supervised_head_variables(model)
    optimizer = build_optimizer(
        o.optimizer,
        schedule,
        momentum=o.momentum,
        weight_decay=o.weight_decay,
        supervised_head=head,
        variables=variables,
        rate_factors=_rate_factors(model, own),
    )
    undecayed = [*normalization_variables(model), *own.undecayed_variables]
    decayed = decayed_variables(o.optimizer, variables, head, undecayed)
    return TrainingParts(method, optimizer, WeightDecay(decayed, o.weight_decay), steps)


def _rate_factors(model: SimCLRModel, own: Extension) -> dict[int, float] | None:
    """Factors on the learning rate by `id` of the variable; None if all have the same rate."""
    if own.rate_factor == 1:
        return None
    factors = {id(v): 1.0 for v in model.trainable_variables}
    return factors | {id(v): own.rate_factor for v in own.trainable_variables}


def build_seeded(
    config: RunConfig,
    devices: Devices,
    channels: int,
    num_classes: int,
    num_examples: int,
    teacher: Checkpoint | None = None,
) -> tuple[SimCLRModel, TrainingParts]:
    """The network of a run and what trains it, under its strategy, in its precision, from its seed.

    Args:
        config: All settings.
        devices: The devices of the run.
        channels: Of the images.
        num_classes: Of the supervised head; 0 = no head.
        num_examples: Training images.
        teacher: See `build_training`.

    Returns:
        The network, with the weights that `machine.seed` draws, and its training parts.
    """
    keras.utils.set_random_seed(config.machine.seed)
    keras.config.set_dtype_policy(choose_precision(config.machine.precision, devices))
    try:
        with devices.strategy.scope():
            model = build_model(config, channels, num_classes)
            return model, build_training(config, model, num_examples, teacher)
    finally:
        keras.config.set_dtype_policy("float32")


def build_step(
    config: RunConfig, devices: Devices, model: SimCLRModel, parts: TrainingParts, channels: int
) -> TrainStep:
    """The training step of a run.

    Args:
        config: Augmentation and whether to compile.
        devices: The devices of the run.
        model: The network.
        parts: What trains it.
        channels: Of the images.
    """
    return TrainStep(
        model,
        parts.method,
        parts.optimizer,
        parts.weight_decay,
        view_config(config, channels),
        devices,
        choose_jit(config.machine.jit_compile, devices),
        small_view_config(config, channels),
        config.train.microbatch,
    )


def _method(
    config: RunConfig,
    model: SimCLRModel,
    num_examples: int,
    steps: int,
    teacher: Checkpoint | None,
) -> Method:
    mode = config.train.train_mode
    if mode == "pretrain":

        def twin() -> SimCLRModel:
            return build_model(config, model.image_channels, num_classes=0)

        recipe = Recipe(config, model, twin, num_examples, steps)
        return METHODS[config.method.method](recipe)
    layers: ProjectionPart = "all" if "unused_projection_head" in config.quirks else "used"
    if mode == "finetune":
        first_stage = first_trained_stage(model) if config.start.cache_frozen else 0
        return Supervised(model, layers, first_stage)
    if teacher is None:
        raise ValueError("distillation needs a teacher")
    d = config.distill
    loaded = _loaded_teacher(d.teacher, teacher, model)
    return Distillation(model, loaded, d.distill_temperature, d.labelled_weight, layers)


def first_trained_stage(model: SimCLRModel) -> int:
    """The first stage that trains; the outputs of those before it may be computed once.

    Returns:
        1 to 4, a block group; 5, what comes after the average pool.

    Raises:
        UserError: The stem trains.
    """
    first = model.encoder.backbone().frozen_prefix + 1
    if first == 0:
        raise UserError(
            "no block is frozen; give --fine_tune_after_block=0 or more, "
            "--train_blocks or --head_only",
            setting="cache_frozen",
        )
    return first


def _loaded_teacher(path: str, checkpoint: Checkpoint, student: SimCLRModel) -> SimCLRModel:
    """The network that a student learns from, with its weights.

    Raises:
        UserError: It has no supervised head, or one of other classes, or takes other images.
    """
    teacher, _ = convert(checkpoint)
    if teacher.num_classes != student.num_classes:
        raise UserError(
            f"has {teacher.num_classes or 'no'} classes; the student has {student.num_classes}",
            setting="teacher",
            value=path,
        )
    if teacher.image_channels != student.image_channels:
        raise UserError(
            f"takes images of {teacher.image_channels} channels, these have "
            f"{student.image_channels}; give --image_channels={teacher.image_channels}",
            setting="teacher",
            value=path,
        )
    teacher.trainable = False
    return teacher


_FLAG = "backbone_weights"


def weighted_backbone(config: RunConfig) -> KerasBackbone | None:
    """The network that `--backbone_weights` is of, for images of three channels.

    Returns:
        The backbone, in float32 and outside any strategy; None if the flag is not given.

    Raises:
        UserError: There is no such file, it is of another network, or cannot be downloaded.
    """
    weights = config.model.backbone_weights
    if not weights:
        return None
    architecture = KerasArchitecture(config.model.backbone)
    trunk = build_trunk(architecture.application, (None, None, 3), weights, _FLAG)
    return KerasBackbone(architecture, trunk=trunk, dtype="float32")


def take_weights(
    backbone: StagedBackbone, source: StagedBackbone, stem_adapt: StemAdapt = "sum"
) -> int:
    """Sets a backbone's weights to those of another of the same kind.

    Args:
        backbone: Changed in place.
        source: For images of the same or another number of channels.
        stem_adapt: How weights for other channels are made.

    Returns:
        How many weights (numbers) were taken.
    """
    mine, theirs = _variables(backbone), _variables(source)
    for variable, other in zip(mine, theirs, strict=True):
        value = keras.ops.convert_to_numpy(other)
        variable.assign(adapt_channels(value, tuple(variable.shape), stem_adapt))
    return sum(int(keras.ops.size(variable)) for variable in mine)


def _variables(backbone: StagedBackbone) -> list[Any]:
    return [v for leaf in backbone.creation_order() for v in leaf.variables]
