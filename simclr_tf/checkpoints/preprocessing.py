"""The preparation of a network's images, and the record of it that travels with the network."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from data_prep.augment.geometry import EVALUATION_CROP
from data_prep.augment.views import SMALL_IMAGE, ViewConfig, evaluation_crops, evaluation_image
from data_prep.manifest.read_options import READING_FIELDS, Declaration, rule_completed
from data_prep.reading.training_files import TrainingFiles, TrainingReading
from data_prep.storage import AGAIN, read_object, write_text
from simclr_tf.checkpoints.find import Location
from simclr_tf.checkpoints.identify import IdentifiedNetwork
from simclr_tf.checkpoints.zoo import class_names
from simclr_tf.training.run_dir import RECORD

_IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Preprocessing:
    """The way from an image's file to a network's input, as in training; see `record`.

    Attributes:
        image_size: Side of the network's input in pixels.
        channels: Of the images.
        class_names: Names of the supervised head's classes.
        central_crop: Central share that is kept before anything else; 0 = all.
        whole_image: All of an image is squeezed into the square.
        reading: How files become images, such as the intensity rule with its limits, and what the
            files of the training were like.
    """

    image_size: int
    channels: int
    class_names: tuple[str, ...] = ()
    central_crop: float = 0.0
    whole_image: bool = False
    reading: TrainingReading = field(default_factory=TrainingReading)

    @staticmethod
    def of_training(
        views: ViewConfig,
        class_names: Sequence[str],
        declaration: Declaration,
        files: TrainingFiles | None,
    ) -> "Preprocessing":
        """What a network carries along from its training.

        Args:
            views: Of the training.
            class_names: Of the images.
            declaration: How their files were read.
            files: Properties of the files that were trained on; None = not known.
        """
        return Preprocessing(
            views.image_size,
            views.channels,
            tuple(class_names),
            views.central_crop,
            views.whole_image,
            TrainingReading(declaration.record(), files),
        )

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "Preprocessing":
        """Reads what `record` wrote, also that of a former version, which knew less."""
        return Preprocessing(
            record["image_size"],
            record["channels"],
            tuple(record.get("class_names", ())),
            record["central_crop"],
            record.get("whole_image", False),
            TrainingReading.from_record(record),
        )

    @staticmethod
    def known_settings(record: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a record decides; none if it does not say how images were seen."""
        known = "image_size" in record
        return Preprocessing.from_record(record).settings() if known else {}

    def record(self) -> dict[str, Any]:
        """The form that travels with a network, in JSON values.

        Besides the attributes it holds `value_range` of the input, and `crop_proportion`, the
        central share that evaluation crops (none for small images, as in SimCLR).
        """
        files = self.reading.files
        whole = self.whole_image or self.image_size <= SMALL_IMAGE
        return {
            "image_size": self.image_size,
            "value_range": [0, 1],
            "channels": self.channels,
            "crop_proportion": 1.0 if whole else EVALUATION_CROP,
            "central_crop": self.central_crop,
            "whole_image": self.whole_image,
            "class_names": list(self.class_names),
            "reading": dict(self.reading.recorded),
            **({"training_files": files.to_json()} if files else {}),
        }

    def settings(self) -> dict[str, Any]:
        """Values of the settings by which another network sees images as this one does."""
        reading = rule_completed(self.reading.recorded)
        return {
            "image_size": self.image_size,
            "central_crop": self.central_crop,
            "whole_image": self.whole_image,
            **{name: reading[name] for name in READING_FIELDS if name in reading},
        }

    @property
    def views(self) -> ViewConfig:
        """The views in which the network is shown images when it is scored or used."""
        return ViewConfig(
            self.image_size,
            self.channels,
            central_crop=self.central_crop,
            whole_image=self.whole_image,
        )

    def inputs(self, image: tf.Tensor, crops: int = 1) -> tf.Tensor:
        """The crops of an image that are scored, before its values are scaled to [0, 1].

        Args:
            image: [H, W, C], uint8 or float32 in [0, 1], as it was read.
            crops: Along each side; 1 = the central one.

        Returns:
            [crops ** 2, S, S, C], of the type of the image or float32; see `evaluation_image`.
        """
        if crops == 1:
            return evaluation_image(image, self.views)[tf.newaxis]
        return evaluation_crops(image, self.views, crops)


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Writes the record beside a checkpoint, where `read_record` finds it."""
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")


def read_record(location: Location, network: IdentifiedNetwork) -> dict[str, Any]:
    """The record that lies beside a checkpoint, or that of the public checkpoints.

    Args:
        location: The checkpoint; a run keeps its record in its folder, a SavedModel in
            `assets.extra`.
        network: What it was recognised as.

    Raises:
        UserError: The record is damaged.
    """
    folder = location.folder
    above = os.path.dirname(folder)
    for place in (folder, above, os.path.join(above, "assets.extra")):
        file = os.path.join(place, RECORD)
        with suppress(FileNotFoundError):
            return read_object(Path(file), AGAIN)
    architecture = network.architecture
    classes = class_names() if network.num_classes == _IMAGENET_CLASSES else ()
    size = SMALL_IMAGE if getattr(architecture, "cifar_stem", False) else 224
    return Preprocessing(size, architecture.image_channels, tuple(classes)).record()
