"""Transfer learning from `keras.applications`: frozen base, perhaps a second stage, report."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import keras
import numpy as np
import tensorflow as tf

from data_prep.augment.color import to_float
from data_prep.augment.image_data_generator import SupervisedConfig, feature_statistics
from data_prep.errors import UserError
from data_prep.page import Section
from data_prep.phrases import format_seconds
from data_prep.settings import Config
from data_prep.sources.source import Source
from data_prep.storage import is_unused
from finetune.classifier import Classifier
from finetune.config import ClassifierConfig
from finetune.data import LabeledData
from finetune.explain import check_layers, choose_images, read_shown, write_pictures
from finetune.finish import finish, history, restore_best
from finetune.former_settings import of_the_run
from finetune.image_data_generator import augment_with_generator
from finetune.inputs import ImageSteps, image_steps
from finetune.keras_backbones import StandardizeInput, build_backbone, trunk_of, unfreeze_after
from finetune.report.page import learning_pictures
from finetune.session import (
    ClassifierDir,
    ClassifierJob,
    ClassifierSession,
    open_session,
    plain_keys,
)
from finetune.train import fit, keep_warnings
from finetune.transfer_config import TransferConfig
from simclr_tf.models.keras_applications import IMAGENET, NONE, PreprocessInput
from simclr_tf.training.fit import StopRequest
from simclr_tf.training.from_checkpoint import seen_by
from simclr_tf.training.run_warnings import RunWarnings, noting_warnings
from simclr_tf.training.workers import naming_lost_workers

log = logging.getLogger(__name__)

_LARGE_HEAD = 10  # times the weights of the backbone


class Transfer:
    """A backbone with a new head: how it is built, fed and described.

    Args:
        config: All settings.
    """

    def __init__(self, config: TransferConfig) -> None:
        self.config = config
        self._weights: list[np.ndarray] = []
        self._statistics: tuple[list[float], list[float]] = ([], [])

    def recipe(self, **changes: Any) -> ClassifierJob:
        """Returns the recipe for the engine; `changes` override its fields."""
        backbone = self.config.start.backbone
        common = ClassifierJob(
            build=self.build,
            parts=parts,
            keys=plain_keys,
            images=self.images,
            program="simclr-transfer",
            title=f"Transfer from {backbone}",
            about=self.about,
            look=self.look,
            fresh=self.build_fresh,
            pretrained=self.config.start.weights != NONE,
        )
        return replace(common, **changes)

    def look(self, data: LabeledData) -> tuple[str, ...]:
        """Builds the backbone once before anything is written: what is wrong with it comes first.

        Returns:
            Sentences on images to be scored that the run of a file of weights was trained on.

        Raises:
            UserError: Network, weights or layers cannot be had.
        """
        self._measure(data.train)
        start, unfreeze, seen = self.config.start, self.config.unfreeze, self.config.look
        backbone = self._backbone(data.channels, start.weights)
        check_layers(backbone, seen.layers(), "feature_maps")
        check_layers(backbone, (seen.grad_cam_layer,) * bool(seen.grad_cam_layer), "grad_cam_layer")
        choose_images(seen.feature_map_images, data, "feature_map_images")
        choose_images(seen.grad_cam, data, "grad_cam")
        if start.weights != NONE:
            self._weights = backbone.get_weights()
        if unfreeze.unfreeze_after:
            unfreeze_after(backbone, unfreeze.unfreeze_after)
        if start.weights in (NONE, IMAGENET):
            return ()
        return seen_by(start.weights, data.manifest, data.train_split)

    def build(self, channels: int, classes: int) -> Classifier:
        """The classifier, its backbone frozen."""
        backbone = self._backbone(channels, NONE)
        if self._weights:
            backbone.set_weights(self._weights)
        head = self.config.head
        shape = self.images(channels).shape
        model = Classifier(
            backbone,
            classes,
            shape,
            head.widths(),
            head.dropout,
            feature_scaling=head.feature_scaling,
        )
        model.build()
        return model

    def build_fresh(self, channels: int, classes: int) -> Classifier:
        """A classifier for its features alone, with weights drawn at random."""
        # Without its head, which may be far larger than the backbone.
        return Classifier(self._backbone(channels, NONE), classes, self.images(channels).shape)

    def build_unfrozen(self, channels: int, classes: int) -> Classifier:
        """The classifier of the second stage."""
        model = self.build(channels, classes)
        unfreeze = self.config.unfreeze
        unfreeze_after(
            model.backbone, unfreeze.unfreeze_after, batch_norm=unfreeze.train_batch_norm
        )
        return model

    def images(self, channels: int) -> ImageSteps:
        """Returns the image steps: augmentation in the pipeline; scaling is in the model."""
        settings = self.config.augment
        crops = self.config.train.eval_crops
        steps = image_steps(settings, settings.chosen_augment(), channels, crops)
        if settings.pipeline == "tf_data":
            return steps
        return replace(steps, trained=_generated(steps, generator_arguments(self.config)))

    def about(self, model: Classifier) -> tuple[str, ...]:
        """Describes the model and its training, in sentences."""
        start, augment = self.config.start, self.config.augment
        trunk = trunk_of(model.backbone)
        origin = {"imagenet": "ImageNet weights of Keras", NONE: "weights drawn at random"}
        weights = origin.get(start.weights, f"the weights in {Path(start.weights).name}")
        how = {"avg": "averaged", "max": "reduced to their maximum", "flatten": "flattened"}
        widths = self.config.head.widths()
        head = f"hidden layers of {', '.join(map(str, widths))}" if widths else "a linear layer"
        if self.config.head.feature_scaling:
            head += " on features standardized on the training images"
        scaled = "its own preprocess_input"
        if augment.preprocess == "none":
            scaled = f"{augment.standardizing() or 'no standardization'}, of images in 0 to 255"
        lines = [
            f"Backbone: {start.backbone} up to {trunk.layers[-1].name}, with {weights}; its "
            f"feature maps are {how[start.pooling]}. Inside the model: {scaled}, once.",
            f"Head: {head}. Parameters: {model.count_params():,}, of which "
            f"{trunk.count_params():,} in the backbone.",
        ]
        if augment.chosen_augment() != "none":
            made = "tf.data" if augment.pipeline == "tf_data" else "Keras' ImageDataGenerator"
            lines.append(f"Training images were augmented by {made}, anew in every epoch.")
        if start.preset:
            lines.append(f"Settings of the preset {start.preset}, where no flag says otherwise.")
        return tuple(lines)

    def _backbone(self, channels: int, weights: str) -> keras.Model:
        start, augment = self.config.start, self.config.augment
        inputs: keras.layers.Layer = PreprocessInput(start.backbone, name="inputs", dtype="float32")
        if augment.preprocess == "none":
            options = augment.standardizing()
            inputs = StandardizeInput(options, *self._statistics, name="inputs", dtype="float32")
        return build_backbone(
            start.backbone,
            image_size=augment.image_size,
            channels=channels,
            weights=weights,
            cut_layer=start.cut_layer,
            pooling=start.pooling,
            inputs=inputs,
        )

    def _measure(self, source: Source) -> None:
        """Mean and deviation of the training images, if they are asked for."""
        options = self.config.augment.standardizing()
        if not any(name.startswith("featurewise") for name in options):
            return
        log.info("measuring %d training images", source.num_examples)
        config = SupervisedConfig(rescale=options.get("rescale"))
        found = feature_statistics(_pixels(source, self.images(source.channels)), config)
        self._statistics = (found.mean.tolist(), found.std.tolist())


def parts(model: Classifier) -> Mapping[str, Sequence[keras.layers.Layer]]:
    """The backbone's layers by part, in order: `block1_conv2` is of `block1`."""
    layers = [layer for layer in trunk_of(model.backbone).layers if layer.weights]
    groups = itertools.groupby(layers, key=lambda layer: layer.name.split("_")[0])
    found: dict[str, list[keras.layers.Layer]] = {}
    for name, group in groups:
        unused = (f"{name} ({n})" if n > 1 else name for n in itertools.count(1))
        found[next(label for label in unused if label not in found)] = list(group)
    return found


def generator_arguments(config: TransferConfig) -> dict[str, Any]:
    """The arguments of ImageDataGenerator that move and colour images."""
    augment = config.augment
    arguments = augment.generator().to_dict()
    kept = {name: value for name, value in arguments.items() if name not in _IN_THE_MODEL}
    return {**kept, "interpolation_order": augment.interpolation_order}


_IN_THE_MODEL = {"rescale", "samplewise_center", "samplewise_std_normalization",
                 "featurewise_center", "featurewise_std_normalization"}  # fmt: skip


def say_size(model: Classifier) -> None:
    """Logs the parameters, and warns of a head that dwarfs its backbone."""
    base, head = model.backbone.count_params(), model.head.count_params()
    log.info("%s parameters: backbone %s, head %s", f"{base + head:,}", f"{base:,}", f"{head:,}")
    if head > _LARGE_HEAD * base:
        log.warning(
            "the head has %.0f times the parameters of its backbone; --pooling=avg makes it small",
            head / base,
        )


def _generated(
    steps: ImageSteps, arguments: Mapping[str, Any]
) -> Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    augment = augment_with_generator(arguments)

    def make(image: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"image": augment(steps.scored(image), seed)}

    return make


def _pixels(source: Source, steps: ImageSteps) -> Iterator[np.ndarray]:
    """The training images in 0 to 255, as they are scored."""
    for element in source.elements(seed=0, shuffle=False, start=0, batch_size=1):
        yield to_float(steps.scored(source.decode(element))).numpy() * 255


FROZEN_STAGE = "frozen_stage"


@dataclass(frozen=True)
class TransferDir(ClassifierDir):
    """The folder of a run; that of a first stage may lie in it.

    Attributes:
        asked: The settings that the user gave, which those of a stage are made from.
    """

    config_type: ClassVar[type[ClassifierConfig]] = TransferConfig
    own_files: ClassVar[tuple[str, ...]] = (
        *ClassifierDir.own_files,
        "grad_cam.png",
        "feature_maps_*.png",
    )

    handed_out: ClassVar[tuple[str, ...]] = (
        *ClassifierDir.handed_out,
        "grad_cam.png",
        "feature_maps_*.png",
    )

    asked: TransferConfig | None = None

    def suited(self, images: int) -> Self:
        """See `ClassifierDir.suited`."""
        return replace(self, asked=self.asked and self.asked.suited(images))

    def check(self) -> None:
        """Refuses a folder that `prepare` would refuse, and touches nothing."""
        overwrite = bool(self.asked and self.asked.run.overwrite)
        if self.path.exists() and not self.path.is_dir():
            raise UserError("is a file; give a folder", setting=self.flag, value=self.path)
        if overwrite or not self.path.exists():
            return
        if self._holds_run():
            self._refuse_other(self._earlier_config(), self.asked or TransferConfig())
        elif not is_unused(self.path, (self.path / FROZEN_STAGE, *self._halves())):
            raise UserError(
                "is not empty and holds no run; give another folder,"
                " or --overwrite to write beside what is there",
                setting=self.flag,
                value=self.path,
            )

    def prepare(self, config: Config) -> bool:
        """See `RunDir.prepare`; a first stage alone is the beginning of the same run."""
        asked = self.asked or config
        if (self.path / FROZEN_STAGE).is_dir() and not self._holds_run():
            super().write_settings(asked)
        return super().prepare(asked)

    def write_settings(self, config: Config) -> None:
        """See `RunDir.write_settings`; what was asked for, not what a stage makes of it."""
        super().write_settings(self.asked or config)


def train_transfer(config: TransferConfig, command: Sequence[str] = ()) -> int:
    """Trains a head on a frozen backbone, then perhaps the end of the backbone too.

    Args:
        config: All settings.
        command: Program and arguments, for the report.

    Returns:
        0, or 128 + the number of the signal that asked the run to stop.

    Raises:
        UserError: Something asked for is impossible; nothing has been overwritten then.
    """
    if not config.run.output:
        raise UserError("is missing: say where the run is to be kept", setting="output")
    with noting_warnings() as kept, naming_lost_workers(), ExitStack() as claims:
        return _train(config, command, kept, claims)


def _train(
    config: TransferConfig, command: Sequence[str], kept: RunWarnings, claims: ExitStack
) -> int:
    began, output = time.perf_counter(), Path(config.run.output)
    config = of_the_run(config, output, output / FROZEN_STAGE)
    for folder in (output, output / FROZEN_STAGE):
        config = TransferDir(folder).as_begun(config)
    transfer = Transfer(config)
    with StopRequest().listening() as stop:
        first = _first_stage(transfer, stop, claims) if config.unfreeze.unfreeze_after else None
        session = None if stop.signal else _last_stage(transfer, first)
        if session:
            claims.enter_context(session.claim)
            keep_warnings(session, kept)
            fit(session, stop)
    if stop.signal or session is None:
        log.info("stopped; what is done is saved, and the same command goes on from there")
        return 128 + stop.signal
    if session.folder.is_complete():
        log.info("the run is complete: %s", session.folder.report_page)
        return 0
    if first:
        _compare(first, session)
    finish(session, command)
    log.info("done in %s: %s", format_seconds(time.perf_counter() - began), config.run.output)
    return 0


def _folder(config: TransferConfig) -> Any:
    return partial(TransferDir, asked=config)


def _first_stage(transfer: Transfer, stop: StopRequest, claims: ExitStack) -> ClassifierSession:
    """The frozen stage, trained, with the weights that validated best; test is not scored."""
    config = transfer.config
    _folder(config)(Path(config.run.output)).check()
    own = replace(
        config, run=replace(config.run, output=str(Path(config.run.output) / FROZEN_STAGE))
    )
    session = open_session(own, transfer.recipe(folder=_folder(own)))
    claims.enter_context(session.claim)
    say_size(session.model)
    fit(session, stop)
    if not stop.signal:
        restore_best(session)
    return session


def _last_stage(transfer: Transfer, first: ClassifierSession | None) -> ClassifierSession:
    config = transfer.config
    folder = _folder(config)
    if first is None:
        recipe = transfer.recipe(folder=folder, sections=partial(_illustrate, first=None))
        session = open_session(config, recipe)
        say_size(session.model)
        return session
    weights = [v.numpy() for v in first.model.variables]

    def start(model: Classifier) -> None:
        for variable, value in zip(model.variables, weights, strict=True):
            variable.assign(value)

    unfreeze = config.unfreeze
    log.info("second stage: what comes after %s trains too", unfreeze.unfreeze_after)
    own = replace(
        config,
        reading=first.config.reading,  # as the first stage began, which may be long ago
        optimizer=replace(config.optimizer, learning_rate=unfreeze.unfreeze_learning_rate),
        train=replace(
            config.train,
            train_epochs=unfreeze.unfreeze_epochs,
            train_steps=0,
            cache_features="auto",
        ),
    )
    recipe = transfer.recipe(
        build=transfer.build_unfrozen,
        start=start,
        new_head=False,
        folder=folder,
        about=lambda model: (*transfer.about(model), _about_stages(config, first)),
        sections=partial(_illustrate, first=first),
    )
    return open_session(own, recipe)


def _about_stages(config: TransferConfig, first: ClassifierSession) -> str:
    o, u = first.config.optimizer, config.unfreeze
    norm = "trained too" if u.train_batch_norm else "kept its statistics"
    return (
        f"Two stages: the head alone at a rate of {o.learning_rate:g}; then, from its best epoch, "
        f"for up to {u.unfreeze_epochs} epochs at {u.unfreeze_learning_rate:g} with the backbone "
        f"after {u.unfreeze_after}, whose batch normalisation {norm}."
    )


def _best(session: ClassifierSession) -> float:
    """The best validation of a run; nan without one."""
    monitor = session.config.train.monitor
    values = history(session).get(f"validation/{monitor}", np.array([]))
    if not np.isfinite(values).any():
        return float("nan")
    return float(np.nanmin(values) if monitor == "loss" else np.nanmax(values))


def _compare(first: ClassifierSession, last: ClassifierSession) -> None:
    before, after, monitor = _best(first), _best(last), last.config.train.monitor
    log.info("best validation %s: %.3f frozen, %.3f unfrozen", monitor, before, after)
    if (after > before) if monitor == "loss" else (after < before):
        log.warning("the second stage did not help on validation; leave --unfreeze_after out")


def _wanted(session: ClassifierSession) -> dict[str, Any]:
    """The pictures to draw, as arguments of `write_pictures`."""
    config = session.config
    assert isinstance(config, TransferConfig)
    look, data = config.look, session.data

    def shown(asked: str, flag: str) -> Any:
        chosen = choose_images(asked, data, flag)
        return read_shown(chosen, data, session.steps) if len(chosen) else None

    maps = shown(look.feature_map_images, "feature_map_images") if look.layers() else None
    cam = shown(look.grad_cam, "grad_cam")
    return {
        "maps": (look.layers(), maps) if maps else None,
        "cam": (look.grad_cam_layer, cam) if cam else None,
    }


def _illustrate(
    session: ClassifierSession, model: Classifier, first: ClassifierSession | None
) -> tuple[Section, ...]:
    """Draws what is asked for: sections of the report, and PNG files."""
    sections = write_pictures(model, session.folder.path, **_wanted(session))
    if first and (curves := learning_pictures(history(first))):
        text = f"Best validation {first.config.train.monitor}: {_best(first):.3f}."
        return (Section("First stage, frozen", (text,), pictures=curves), *sections)
    return sections
