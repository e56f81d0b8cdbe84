"""Transfer learning from `keras.applications`: what `simclr-transfer` brings to the engine."""

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data_prep.augment.image_data_generator import SupervisedConfig, feature_statistics
from data_prep.augment.photometry import to_float
from data_prep.sources.source import Source
from finetune.classifier import Classifier
from finetune.data import LabelledData
from finetune.explain import check_layers, choose_images
from finetune.image_data_generator import augment_with_generator
from finetune.inputs import ImageSteps, image_steps
from finetune.keras_backbones import build_backbone, trunk_of, unfreeze_after
from finetune.recipe import Recipe, plain_keys
from finetune.standardize_input import StandardizeInput
from finetune.transfer_config import TransferConfig
from simclr_tf.checkpoints.preprocessing import preprocessing_record
from simclr_tf.models.keras_applications import IMAGENET, NONE, PreprocessInput
from simclr_tf.training.lineage import seen_by

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

    def recipe(self, **changes: Any) -> Recipe:
        """What the engine is told; `changes` win."""
        backbone = self.config.start.backbone
        common = Recipe(
            build=self.build,
            parts=parts,
            keys=plain_keys,
            images=self.images,
            record=self.record,
            program="simclr-transfer",
            title=f"Transfer from {backbone}",
            about=self.about,
            look=self.look,
            fresh=self.build_fresh,
            pretrained=self.config.start.weights != NONE,
        )
        return replace(common, **changes)

    def look(self, data: LabelledData) -> tuple[str, ...]:
        """Builds the backbone once before anything is written: what is wrong with it comes first.

        Returns:
            Which images to be scored the run has seen that a file of weights lies in.

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
        """What becomes of images: augmentation in the pipeline, scaling in the model."""
        settings = self.config.augment
        crops = self.config.train.eval_crops
        steps = image_steps(settings, settings.chosen_augment(), channels, crops)
        if settings.pipeline == "tf_data":
            return steps
        return replace(steps, trained=_generated(steps, generator_arguments(self.config)))

    def record(self, data: LabelledData, steps: ImageSteps) -> dict[str, Any]:
        """What a user must know to prepare images."""
        return preprocessing_record(
            steps.shape[0],
            data.channels,
            data.class_names,
            self.config.augment.central_crop,
            data.reading.record(),
            self.config.augment.whole_image,
            data.files,
        )

    def about(self, model: Classifier) -> tuple[str, ...]:
        """What was trained, sentences."""
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
