"""Which parts of a network moved: a hash of each part's weights and moving statistics."""

import hashlib
from collections.abc import Iterable

import keras
import numpy as np

from simclr_tf.models.simclr import SimCLRModel


def part_hashes(model: SimCLRModel) -> dict[str, str]:
    """SHA-256 of every part of a network, over the bytes of its variables.

    Under a strategy all workers must call it, for reading variables that are spread over workers
    takes all of them.

    Args:
        model: A built model.

    Returns:
        By `stem`, `block_group1` to `block_group4`, `projection_head` and `supervised_head`, those
        that the network has.
    """
    stages = {
        f"block_group{i}" if i else "stem": stage
        for i, stage in model.encoder.backbone().stages.items()
    }
    parts: dict[str, keras.layers.Layer | None] = {
        **stages,
        "projection_head": model.encoder.projection_head,
        "supervised_head": model.supervised_head,
    }
    return {
        name: variables_hash(part.variables)
        for name, part in parts.items()
        if part and part.variables
    }


def variables_hash(variables: Iterable[keras.Variable]) -> str:
    """SHA-256 over the bytes of variables, in hexadecimal."""
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(np.ascontiguousarray(variable.value.numpy()).tobytes())
    return digest.hexdigest()


def moved(before: dict[str, str], after: dict[str, str]) -> dict[str, bool]:
    """Whether each part changed."""
    return {name: after[name] != value for name, value in before.items() if name in after}
