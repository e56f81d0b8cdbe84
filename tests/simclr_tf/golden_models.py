"""Models filled as the golden numbers' models were."""

from typing import Any

import numpy as np

from simclr_tf.models import SimCLREncoder, SimCLRModel, canonical_variables
from tests import golden

ENCODER_FLAGS = {
    "resnet_depth": "depth",
    "width_multiplier": "width_multiplier",
    "sk_ratio": "sk_ratio",
    "se_ratio": "se_ratio",
    "global_bn": "global_bn",
    "proj_head_mode": "proj_head_mode",
    "num_proj_layers": "num_proj_layers",
    "proj_out_dim": "proj_out_dim",
}


def encoder_arguments(flags: dict[str, Any], shrink: int = 1) -> dict[str, Any]:
    """Arguments of `SimCLREncoder` for the reference's flags; `shrink` divides the width."""
    arguments = {ours: flags[theirs] for theirs, ours in ENCODER_FLAGS.items() if theirs in flags}
    arguments["width_multiplier"] = arguments.get("width_multiplier", 1) / shrink
    arguments["cifar_stem"] = flags.get("image_size", 224) <= 32
    return arguments


def golden_model(
    flags: dict[str, Any], num_classes: int | None, dtype: str = "float32", shrink: int = 1
) -> SimCLRModel:
    """The model of a golden case with its initial weights."""
    encoder = SimCLREncoder(**encoder_arguments(flags, shrink), dtype=dtype)
    model = SimCLRModel(encoder, num_classes, flags.get("ft_proj_selector", 0))
    fill_model(model)
    return model


def fill_model(model: SimCLRModel) -> None:
    """Sets every variable to the value that belongs to its name."""
    for name, variable in canonical_variables(model).items():
        variable.assign(golden.fill(name, tuple(variable.shape)))


def two_views(x: np.ndarray) -> np.ndarray:
    """Views on the channel axis -> views on the batch axis, first views first."""
    return np.concatenate(np.split(x, 2, axis=-1), axis=0)
