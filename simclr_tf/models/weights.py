"""Freezing of a model's parts, hashes of their weights, copies of networks.

A frozen part keeps its weights *and* its moving statistics. A frozen beginning of the network
costs no backward pass: `StagedBackbone.endpoints` stops the gradient there.
"""

import hashlib
from collections.abc import Collection, Iterable
from typing import Any

import keras
import numpy as np

from data_prep.errors import UserError
from simclr_tf.models.architectures import NUM_GROUPS, PARTS
from simclr_tf.models.batch_norm import BatchNorm
from simclr_tf.models.simclr import SimCLRModel


def blocks_after(fine_tune_after_block: int) -> tuple[str | int, ...]:
    """The parts that `--fine_tune_after_block` leaves trainable.

    Args:
        fine_tune_after_block: -1 trains everything, 0 freezes the stem, k in 1..4 freezes the stem
            and the block groups up to k.

    Raises:
        UserError: outside [-1, 4].
    """
    if not -1 <= fine_tune_after_block <= NUM_GROUPS:
        raise UserError(
            f"fine_tune_after_block is {fine_tune_after_block}; it must be -1 (train all) to "
            f"{NUM_GROUPS} (heads only)"
        )
    return PARTS[fine_tune_after_block + 1 :]


def freeze(
    model: SimCLRModel,
    fine_tune_after_block: int = -1,
    *,
    train_blocks: Collection[str | int] | None = None,
    unused_projection_head: bool = True,
    frozen_statistics_move: bool = False,
) -> None:
    """Sets which parts of a model train; the supervised head always does.

    Call it before the optimizer is built.

    Args:
        model: changed in place, and built if it was not.
        fine_tune_after_block: see `blocks_after`.
        train_blocks: any of "stem", 1, 2, 3, 4, "head" (the projection head); wins over
            `fine_tune_after_block`. With gaps, frozen parts above a trained one pass its gradient.
        unused_projection_head: whether projection layers above `ft_proj_selector` train. Keep it
            for pretraining; say False for fine-tuning (with `projection_layers="used"` in
            `SimCLRModel.forward`). The SimCLR TF2 code has it True always.
        frozen_statistics_move: let frozen parts run on batch statistics and move the stored ones,
            as the SimCLR TF2 code does.

    Raises:
        UserError: if there is no such part.
    """
    parts = blocks_after(fine_tune_after_block) if train_blocks is None else tuple(train_blocks)
    for part in parts:
        if part not in PARTS:
            raise UserError(f"there is no part {part!r} to train; parts are {PARTS}")
    if not model.built:
        model.build()
    for number, stage in model.encoder.backbone().stages.items():
        stage.trainable = ("stem" if number == 0 else number) in parts
    for i, layer in enumerate(model.encoder.projection_head.projection_layers):
        used = unused_projection_head or i < model.selected_layer
        layer.trainable = "head" in parts and used
    for norm in batch_norms(model):
        norm.frozen_statistics_move = frozen_statistics_move


def batch_norms(model: SimCLRModel) -> list[BatchNorm]:
    """All normalisation layers in creation order."""
    layers = [
        *model.encoder.backbone().creation_order(),
        *model.encoder.projection_head.creation_order(),
    ]
    return [layer for layer in layers if isinstance(layer, BatchNorm)]


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
    """Compares hashes of parts: True for each part that changed."""
    return {name: after[name] != value for name, value in before.items() if name in after}


def float32_copy(model: SimCLRModel) -> SimCLRModel:
    """A copy of a network, outside any strategy, that computes in float32 and trains as a whole."""
    return copy_in(model, "float32", trainable=True, trainability={})


def copy_in(model: SimCLRModel, dtype: str, **config: Any) -> SimCLRModel:
    """A copy of a network, outside any strategy.

    Args:
        model: The network.
        dtype: Policy that the copy computes in, such as `mixed_bfloat16`.
        **config: What else differs in its configuration.
    """
    copy = SimCLRModel.from_config({**model.get_config(), "dtype": dtype, **config})
    copy.build((None, None, None, model.image_channels))
    for target, source in zip(copy.variables, model.variables, strict=True):
        target.assign(source.value.numpy())
    return copy
