"""Fine-tuning of SimCLR encoders: what `simclr-finetune` brings to the engine."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import keras

from data_prep.errors import UserError, setting_renamed
from finetune.classifier import Classifier, SimCLRBackbone, simclr_keys
from finetune.config import FinetuneConfig
from finetune.former_settings import of_the_run
from finetune.inputs import ImageSteps, image_steps
from finetune.session import ClassifierJob
from finetune.train import train_classifier
from simclr_tf.checkpoints.load import Checkpoint, build_encoder, load_variables, open_checkpoint
from simclr_tf.checkpoints.preprocessing import Preprocessing
from simclr_tf.models.architectures import ProjectionArchitecture
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.training.from_checkpoint import say_exif, seen_before

log = logging.getLogger(__name__)


def finetune(
    config: FinetuneConfig, given: Collection[str] = (), command: Sequence[str] = ()
) -> int:
    """Trains a classifier on an encoder; see `train_classifier`.

    Args:
        config: All settings; those that were not given are completed from the encoder's record.
        given: Names of the settings that were given.
        command: Program and arguments, for the report.

    Returns:
        0, or 128 + the number of the signal that asked the run to stop.

    Raises:
        UserError: Something asked for is impossible; nothing has been overwritten then.
    """
    if not config.start.encoder:
        raise UserError("is missing: say which network to start from", setting="encoder")
    checkpoint = _open(config)
    _check_projection(config, checkpoint)
    config = of_the_run(_adopt(config, checkpoint, given), Path(config.run.output))
    return train_classifier(config, recipe(config, checkpoint), command)


def _open(config: FinetuneConfig) -> Checkpoint:
    with setting_renamed(checkpoint="encoder"):
        return open_checkpoint(config.start.encoder, ema=config.start.ema)


def _adopt(
    config: FinetuneConfig, checkpoint: Checkpoint, given: Collection[str]
) -> FinetuneConfig:
    """Image size, central crop and the reading of files as the encoder knows them."""
    record, values = checkpoint.preprocessing, config.values()
    known = Preprocessing.known_settings(record)
    adopted = {n: v for n, v in known.items() if n not in given and values[n] != v}
    if adopted:
        said = ", ".join(f"--{name}={value}" for name, value in adopted.items())
        log.info("from %s: %s", checkpoint.stored.path, said)
    say_exif(record, {**values, **adopted}["exif"])
    return FinetuneConfig.from_values({**values, **adopted})


def _check_projection(config: FinetuneConfig, checkpoint: Checkpoint) -> None:
    """Refuses a layer of the projection head that is not there."""
    head: ProjectionArchitecture = checkpoint.network.projection
    try:
        head.selector_index(config.start.ft_proj_selector)
    except UserError as error:
        raise UserError(
            f"{error}", setting="ft_proj_selector", value=config.start.ft_proj_selector
        ) from None


def recipe(config: FinetuneConfig, checkpoint: Checkpoint) -> ClassifierJob:
    """The recipe of fine-tuning a checkpoint's encoder.

    Args:
        config: All settings.
        checkpoint: The encoder, opened.
    """
    start, augment = config.start, _augment(config)

    def images(channels: int) -> ImageSteps:
        return image_steps(config.augment, augment, channels, config.train.eval_crops)

    def build(channels: int, classes: int) -> Classifier:
        dtype = keras.config.dtype_policy().name
        encoder = build_encoder(checkpoint, channels, dtype)
        encoder.backbone().check_image_size(images(channels).shape[0])
        backbone = SimCLRBackbone(encoder, start.ft_proj_selector)
        model = Classifier(
            backbone, classes, images(channels).shape, config.head.widths(), config.head.dropout
        )
        model.build()
        backbone.freeze_but(start.trained_parts())
        return model

    def load(model: Classifier) -> None:
        if not start.fresh_weights:
            encoder = SimCLRModel(_backbone(model).encoder)
            with setting_renamed(checkpoint="encoder"):
                coverage = load_variables(encoder, checkpoint, start.stem_adapt)
            log.info("starting from the weights of %s", coverage.summary())

    def parts(model: Classifier) -> Mapping[str, Sequence[keras.layers.Layer]]:
        return _backbone(model).parts()

    return ClassifierJob(
        build=build,
        parts=parts,
        keys=simclr_keys,
        images=images,
        program="simclr-finetune",
        title=f"Fine-tuned {checkpoint.network.name}",
        about=lambda model: _about(config, checkpoint, augment),
        start=load,
        pretrained=not start.fresh_weights,
        look=lambda data: seen_before(checkpoint, data.manifest, data.train_split),
    )


def _augment(config: FinetuneConfig) -> str:
    asked = config.augment.augment
    if asked != "auto":
        return asked
    chosen = "none" if config.start.trained_parts() == () else "views"
    log.info("--augment=auto: %s", chosen)
    return chosen


def _backbone(model: Classifier) -> SimCLRBackbone:
    backbone = model.backbone
    assert isinstance(backbone, SimCLRBackbone)
    return backbone


def _about(config: FinetuneConfig, checkpoint: Checkpoint, augment: str) -> tuple[str, ...]:
    start = config.start
    trained = start.trained_parts()
    what = "the whole network"
    if trained is not None:
        named = [f"block group {part}" if isinstance(part, int) else part for part in trained]
        named = ["projection head" if part == "head" else part for part in named]
        what = ", ".join([*named, "the classifier's head"])
    widths = config.head.widths()
    head = f"hidden widths {', '.join(map(str, widths))}" if widths else "a linear layer"
    origin = "its architecture alone, weights drawn anew" if start.fresh_weights else "its weights"
    stored = checkpoint.stored
    lines = [
        f"Encoder: {checkpoint.network.name}, {origin} ({stored.layout} {stored.path}).",
        f"Head: {head}. Trained: {what}.",
    ]
    if augment == "none":
        lines.append("Training images were cropped as in evaluation; nothing augmented them.")
    if start.preset:
        lines.append(f"Settings of the preset {start.preset}, where no flag says otherwise.")
    return tuple(lines)
