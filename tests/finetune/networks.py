"""Small untrained networks with a supervised head, written as a run leaves them."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from simclr_tf.checkpoints.preprocessing import Preprocessing, write_record
from simclr_tf.checkpoints.write import write_model
from simclr_tf.models import SimCLREncoder, SimCLRModel


def network(
    classes: tuple[str, ...], size: int = 16, channels: int = 3, **architecture: Any
) -> SimCLRModel:
    """A network whose weights and stored statistics are all drawn at random."""
    keras.utils.set_random_seed(0)
    record = Preprocessing(size, channels, classes).record()
    arguments = {"depth": 18, "width_multiplier": 0.0625, "cifar_stem": size <= 32}
    arguments |= {"image_channels": channels, "preprocessing": record}
    model = SimCLRModel(SimCLREncoder(**{**arguments, **architecture}), len(classes))
    model.build()
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.ndim == 1:  # offsets, means, biases
            variable.assign(rng.normal(0, 0.3, variable.shape))
    kernel = model.supervised_head.dense.kernel  # type: ignore[union-attr]
    kernel.assign(rng.normal(0, 0.5, kernel.shape))
    return model


def write_run(
    folder: Path, classes: tuple[str, ...], *, report: dict[str, Any] | None = None, **kwargs: Any
) -> Path:
    """A folder with a checkpoint and its record, and perhaps a report; returns it."""
    model = network(classes, **kwargs)
    write_model(model, folder, "tf1")
    write_record(folder, model.encoder.preprocessing)
    if report:
        (folder / "report.json").write_text(json.dumps(report))
    return folder
