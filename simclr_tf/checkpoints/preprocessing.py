"""The record that travels with an encoder: how the images it knows were prepared."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_prep.augment.geometry import EVALUATION_CROP
from data_prep.augment.views import SMALL_IMAGE, ViewConfig
from data_prep.reading.training_files import TrainingFiles
from data_prep.storage import AGAIN, read_object, write_text
from simclr_tf.checkpoints.find import Location
from simclr_tf.checkpoints.identify import Network
from simclr_tf.checkpoints.zoo import class_names
from simclr_tf.training.run_dir import RECORD

_IMAGENET_CLASSES = 1000


def preprocessing_record(
    image_size: int,
    channels: int,
    classes: tuple[str, ...] = (),
    central_crop: float = 0.0,
    reading: Mapping[str, Any] | None = None,
    whole_image: bool = False,
    files: TrainingFiles | None = None,
) -> dict[str, Any]:
    """The facts that later commands need to prepare images as in training.

    Args:
        image_size: Side of the network's input in pixels.
        channels: Of the images.
        classes: Names of the supervised head's classes.
        central_crop: Central share that is kept before anything else; 0 = all.
        reading: How files become images, such as the intensity rule with its limits; see
            `data_prep.manifest.read_options.Declaration.record`.
        whole_image: All of an image is squeezed into the square.
        files: The files that were trained on; None = not known.

    Returns:
        JSON values: besides these `value_range`, and `crop_proportion`, the central share that
        evaluation crops (none for small images, as in SimCLR).
    """
    return {
        "image_size": image_size,
        "value_range": [0, 1],
        "channels": channels,
        "crop_proportion": 1.0 if whole_image or image_size <= SMALL_IMAGE else EVALUATION_CROP,
        "central_crop": central_crop,
        "whole_image": whole_image,
        "class_names": list(classes),
        "reading": dict(reading or {}),
        **({"training_files": files.to_json()} if files else {}),
    }


def evaluation_views(record: Mapping[str, Any]) -> ViewConfig:
    """The views in which the record's network is shown images when it is scored or used."""
    return ViewConfig(
        record["image_size"],
        record["channels"],
        central_crop=record["central_crop"],
        whole_image=record.get("whole_image", False),  # older records do not know it
    )


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Writes the record beside a checkpoint, where `read_record` finds it."""
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")


def read_record(location: Location, network: Network) -> dict[str, Any]:
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
    return preprocessing_record(size, architecture.image_channels, classes)
