"""Every backbone, small enough for tests: its options, and the smallest images they are given."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import keras
import numpy as np

from simclr_tf.models import SimCLREncoder, SimCLRModel
from simclr_tf.models.weights import batch_norms

RESNET: dict[str, Any] = {"depth": 18, "width_multiplier": 0.0625, "cifar_stem": True}
SMALL: dict[str, dict[str, Any]] = {
    "resnet": RESNET,
    **{
        name: {
            "backbone": {
                "backbone": name,
                "width_multiplier": 16 / width,
                "transformer_depth": 4,
                "patch_size": 4,
            }
        }
        for name, width in (("vit_tiny", 192), ("vit_small", 384))
    },
    "hybrid": {
        "backbone": {
            "backbone": "hybrid",
            "width_multiplier": 0.0625,
            "transformer_depth": 2,
            "cifar_stem": True,
        }
    },
    "keras:mobilenetv3small": {"backbone": {"backbone": "keras:MobileNetV3Small"}},
}
QUICK = ["vit_tiny", "hybrid", "keras:mobilenetv3small"]  # a kind each
SIZE = 32

# The same as flags of `simclr-run`.
FLAGS: dict[str, dict[str, Any]] = {
    name: {
        "backbone": name,
        **{
            key: value
            for key, value in SMALL[name]["backbone"].items()
            if key not in ("backbone", "cifar_stem")
        },
    }
    for name in QUICK
}


def encoder(name: str, channels: int = 3, **more: Any) -> SimCLREncoder:
    """An encoder whose stored statistics are those of `images`."""
    keras.utils.set_random_seed(0)
    arguments = {"proj_out_dim": 8, "num_proj_layers": 2, "image_channels": channels}
    built = SimCLREncoder(**{**arguments, **SMALL[name], **more})
    built.build()
    norms = batch_norms(SimCLRModel(built))
    with_statistics(norms, lambda: built.hiddens(images(channels), training=True))
    return built


@cache
def shared_encoder(name: str, channels: int = 3) -> SimCLREncoder:
    """The same for tests that change nothing."""
    return encoder(name, channels)


def model(name: str, channels: int = 3, classes: int = 3, **more: Any) -> SimCLRModel:
    """The same with a supervised head."""
    whole = SimCLRModel(encoder(name, channels, **more), classes)
    whole.build()
    return whole


def with_statistics(norms: Iterable[keras.layers.Layer], run: Callable[[], object]) -> None:
    """Sets the stored statistics of normalisations to those of the batch that `run` passes on."""
    momenta = [(norm, norm.momentum) for norm in norms]
    for norm, _ in momenta:
        norm.momentum = 0.0
    run()
    for norm, momentum in momenta:
        norm.momentum = momentum


def images(channels: int = 3, count: int = 4, size: int = SIZE) -> np.ndarray:
    """[count, size, size, channels] in [0, 1]."""
    return np.random.default_rng(1).random((count, size, size, channels)).astype(np.float32)
