"""Small runs of `simclr-finetune`, for tests."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune.config import FinetuneConfig
from finetune.finetune import finetune
from simclr_tf.checkpoints.preprocessing import Preprocessing
from simclr_tf.checkpoints.write import export_keras
from simclr_tf.models.simclr import SimCLREncoder
from tests import tiny

TINY: dict[str, Any] = {
    "train_batch_size": 8,
    "eval_batch_size": 16,
    "train_epochs": 3,
    "learning_rate": 0.01,
    "precision": "float32",
    "bootstrap": 100,
    "floors": False,
}


RESNET: dict[str, Any] = {"depth": 18, "width_multiplier": 0.0625, "cifar_stem": True}


def write_encoder(path: Path, channels: int = 3, seed: int = 0, **architecture: Any) -> Path:
    """An encoder for images of 32 pixels: of `tests.tiny`, or as `RESNET` says.

    Other processes know a ResNet; `tests.tiny` is traced in a tenth of the time.
    """
    keras.utils.set_random_seed(seed)
    encoder = SimCLREncoder(
        **architecture or {"backbone": {"backbone": tiny.NAME}},
        image_channels=channels,
        proj_out_dim=16,
        preprocessing=Preprocessing(32, channels).record(),
    )
    encoder.build()
    export_keras(encoder, path)
    return path


def config(encoder: Path, images: Path, output: Path, **values: Any) -> FinetuneConfig:
    return FinetuneConfig.from_values(
        {
            **TINY,
            "encoder": str(encoder),
            "image_dir": str(images),
            "output": str(output),
            **values,
        }
    )


def run(encoder: Path, images: Path, output: Path, **values: Any) -> int:
    """Runs with the settings of the encoder where nothing else is said."""
    return finetune(config(encoder, images, output, **values), values)


def weights(model: keras.Model) -> list[np.ndarray]:
    return [v.value.numpy() for v in model.variables]
