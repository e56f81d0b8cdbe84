"""A model's variables by the names that SimCLR checkpoints give them."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import keras

from data_prep.errors import UserError
from simclr_tf.models.architectures import ProjectionArchitecture, ResNetArchitecture
from simclr_tf.models.backbone import StagedBackbone, stage_leaves
from simclr_tf.models.batch_norm import BatchNorm
from simclr_tf.models.resnet import ResNet
from simclr_tf.models.simclr import SimCLREncoder, SimCLRModel
from simclr_tf.models.variable_layout import (
    VariableSpec,
    model_variables,
    projection_variables,
    resnet_variables,
    supervised_variables,
    tf2_variable_names,
    tf2_variable_order,
)

NamedModel = SimCLRModel | SimCLREncoder | StagedBackbone

OWN_BACKBONE = "model/backbone/"  # of keys in object graphs; the reference has no such backbones


def variable_specs(model: NamedModel) -> list[VariableSpec]:
    """Names, shapes and keys of a model's variables in creation order; a ResNet's built or not."""
    if isinstance(model, ResNet):
        return resnet_variables(model.architecture)
    if isinstance(model, StagedBackbone):
        return _staged_variables(model)
    encoder = model.encoder if isinstance(model, SimCLRModel) else model
    specs, head = variable_specs(encoder.backbone()), encoder.projection_head.architecture
    specs = specs + projection_variables(head, encoder.feature_dim)
    if isinstance(model, SimCLRModel) and model.num_classes:
        dim = head.hidden_dim(model.selected_layer, encoder.feature_dim)
        specs += supervised_variables(dim, model.num_classes)
    return specs


def _staged_variables(backbone: StagedBackbone) -> list[VariableSpec]:
    """Variables of another backbone than a ResNet by stage and the layer's number in it."""
    specs = []
    for number, stage in backbone.stages.items():
        scope = f"block_group{number}" if number else "stem"
        for i, leaf in enumerate(stage_leaves(stage)):
            for j, variable in enumerate(leaf.variables):
                name = f"{scope}/{i}/{variable.name}"
                specs.append(
                    VariableSpec(
                        f"base_model/{name}",
                        tuple(variable.shape),
                        f"{OWN_BACKBONE}{name}/.ATTRIBUTES/VARIABLE_VALUE",
                        bool(variable.trainable),
                        (number, i, j),
                    )
                )
    return specs


def _leaves(model: NamedModel) -> list[keras.layers.Layer]:
    if isinstance(model, StagedBackbone):
        return model.creation_order()
    if isinstance(model, SimCLREncoder):
        return [*model.backbone().creation_order(), *model.projection_head.creation_order()]
    supervised = [] if model.supervised_head is None else model.supervised_head.creation_order()
    return [*_leaves(model.encoder), *supervised]


def canonical_variables(model: NamedModel) -> dict[str, keras.Variable]:
    """All variables by their name in the TF1 graph, in creation order.

    Args:
        model: a model of this package; built if it was not.

    Returns:
        For example `base_model/conv2d/kernel`, `base_model/batch_normalization_3/gamma`,
        `head_contrastive/nl_0/dense/kernel`, `head_supervised/linear_layer/dense/bias`.
    """
    if not model.built:
        model.build()
    specs = variable_specs(model)
    variables = [v for leaf in _leaves(model) for v in leaf.variables]
    named = dict(zip((spec.name for spec in specs), variables, strict=True))
    for spec in specs:
        if tuple(named[spec.name].shape) != spec.shape:
            raise AssertionError(f"{spec.name}: {named[spec.name].shape} is not {spec.shape}")
    return named


def tf2_checkpoint_keys(model: NamedModel) -> dict[str, keras.Variable]:
    """All variables by their key in the public TF2 checkpoints, in creation order."""
    named = canonical_variables(model)
    return {spec.tf2_key: named[spec.name] for spec in variable_specs(model)}


def tf2_variables(model: NamedModel) -> dict[str, keras.Variable]:
    """All variables by their name in the reference's TF2 network, in the order of its `variables`.

    Optimizers of the reference leave variables out by parts of these names: `batch_normalization`,
    `bias`, `head_supervised`. Variables of other backbones than ResNets keep the names of
    `canonical_variables`, with a `batch_normalization` where they belong to a normalization layer
    (or are vectors that training here treats like one).
    """
    named, specs = canonical_variables(model), variable_specs(model)
    backbone = _backbone(model)
    if not isinstance(backbone, ResNet):
        left_out = {id(v) for v in normalization_variables(model)}
        return {_marked(name, id(v) in left_out): v for name, v in named.items()}
    encoder = model.encoder if isinstance(model, SimCLRModel) else model
    synchronised = not isinstance(encoder, SimCLREncoder) or encoder.projection_head.global_bn
    norm = "sync_batch_normalization" if synchronised else "batch_normalization"
    names = tf2_variable_names(specs, norm)
    return {names[name]: named[name] for name in tf2_variable_order(specs)}


def _marked(name: str, left_out: bool) -> str:
    if not left_out or "batch_normalization" in name or name.endswith("bias"):
        return name
    scope, _, last = name.rpartition("/")
    return f"{scope}/batch_normalization/{last}"


def variable_shapes(num_classes: int | None = None, **config: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every variable of a network that need not exist.

    Args:
        num_classes: of the supervised head; None for no such head.
        **config: arguments of `SimCLREncoder` that decide on shapes, and `ft_proj_selector`.

    Returns:
        Canonical names and shapes in creation order.
    """
    selector = config.pop("ft_proj_selector", 0)
    head_keys = {
        "proj_head_mode": "mode",
        "proj_out_dim": "out_dim",
        "num_proj_layers": "num_layers",
    }
    head = {short: config.pop(long) for long, short in head_keys.items() if long in config}
    arch = ResNetArchitecture(**config)
    specs = model_variables(arch, ProjectionArchitecture(**head), num_classes, selector)
    return {spec.name: spec.shape for spec in specs}


def normalization_variables(model: NamedModel) -> list[keras.Variable]:
    """Scales and offsets of all normalisation layers.

    Other backbones than ResNets have normalisations of several kinds, so all of their vectors are
    taken, biases and layer scales too.
    """
    norms = [leaf for leaf in _leaves(model) if isinstance(leaf, BatchNorm)]
    known = [v for norm in norms for v in (norm.gamma, norm.beta) if v is not None]
    backbone = _backbone(model)
    if isinstance(backbone, ResNet):
        return known
    return known + [v for v in backbone.variables if len(v.shape) <= 1]


def _backbone(model: NamedModel) -> StagedBackbone:
    if isinstance(model, StagedBackbone):
        return model
    return (model.encoder if isinstance(model, SimCLRModel) else model).backbone()


def supervised_head_variables(model: NamedModel) -> list[keras.Variable]:
    """Kernel and bias of the supervised head; nothing if there is none."""
    head = model.supervised_head if isinstance(model, SimCLRModel) else None
    return [] if head is None else list(head.dense.variables)


def normalized_kernels(
    model: NamedModel,
) -> Iterator[tuple[str, keras.Variable, BatchNorm]]:
    """Every kernel that a normalisation follows at once: its canonical name, itself, and that.

    Raises:
        UserError: The backbone is no ResNet, whose layers alone are known to follow each other.
    """
    if not isinstance(_backbone(model), ResNet):
        raise UserError(
            f"is for ResNets, not for {_backbone(model).architecture.name}", setting="rescale"
        )
    names = {id(v): name for name, v in canonical_variables(model).items()}
    for leaf, following in pairwise(_leaves(model)):
        if isinstance(following, BatchNorm) and not isinstance(leaf, BatchNorm):
            yield names[id(leaf.kernel)], leaf.kernel, following
