"""Every variable of a SimCLRv2 network, from its numbers alone: names, shapes, checkpoint keys.

Nothing is allocated, so that a ResNet-152 3x costs as little as a ResNet-18. The real models are
tested to agree with these lists; checkpoints are read and written by them.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from simclr_tf.models.architectures import (
    NUM_GROUPS,
    ProjectionArchitecture,
    ResNetArchitecture,
)

Shape = tuple[int, ...]
NORM_VARIABLES = ("gamma", "beta", "moving_mean", "moving_variance")
MOVING = ("moving_mean", "moving_variance")


@dataclass(frozen=True)
class VariableSpec:
    """One variable as checkpoints know it.

    Attributes:
        name: name in the TF1 graph, such as `base_model/conv2d_3/kernel`.
        shape: its shape.
        tf2_key: path in the object graph of a TF2 checkpoint, with the usual suffix.
        trained: False for moving statistics.
        tf2_rank: sorts the trained variables as the TF2 code's `model.trainable_variables`.
    """

    name: str
    shape: Shape
    tf2_key: str
    trained: bool
    tf2_rank: tuple[int, ...]


@dataclass(frozen=True)
class _Leaf:
    """A convolution, dense or normalisation layer before it is numbered."""

    kind: str
    tf2_path: str
    variables: Mapping[str, Shape]
    rank: tuple[int, ...]


class _Path:
    """Adds leaves along one path of the network; keeps the channel count that flows there."""

    def __init__(self, prefix: str, channels: int, rank: tuple[int, ...]) -> None:
        self.prefix, self.channels, self.rank = prefix, channels, rank
        self.leaves: list[_Leaf] = []

    def _add(self, kind: str, tf2_path: str, variables: Mapping[str, Shape]) -> None:
        rank = (*self.rank, len(self.leaves))
        self.leaves.append(_Leaf(kind, f"{self.prefix}/{tf2_path}", variables, rank))

    def conv(self, tf2_path: str, kernel: int, filters: int, bias: bool = False) -> None:
        variables: dict[str, Shape] = {"kernel": (kernel, kernel, self.channels, filters)}
        if bias:
            variables["bias"] = (filters,)
        self._add("conv2d", tf2_path, variables)
        self.channels = filters

    def norm(self, tf2_path: str) -> None:
        shapes = dict.fromkeys(NORM_VARIABLES, (self.channels,))
        self._add("batch_normalization", f"{tf2_path}/bn", shapes)


def _stem(arch: ResNetArchitecture) -> list[_Leaf]:
    path = _Path("model/resnet_model/initial_conv_relu_max_pool", arch.image_channels, (0,))
    base = arch.base_filters
    if arch.deep_stem:
        # Numbers count the TF2 code's list of layers, where some have no variables.
        for index, filters in ((0, base // 2), (2, base // 2)):
            path.conv(f"{index}/conv2d", 3, filters)
            path.norm(str(index + 1))
        path.conv("4/conv2d", 3, base)
        path.norm("6")
    else:
        path.conv("0/conv2d", 3 if arch.cifar_stem else 7, base)
        path.norm("2")
    return path.leaves


def _shortcut(arch: ResNetArchitecture, group: int, path: _Path) -> None:
    index = 0
    if arch.sk_ratio > 0:
        index = 1 if group == 1 else 2
    path.conv(f"{index}/conv2d", 1, arch.group_filters(group) * arch.expansion)
    path.norm(str(index + 1))


def _basic(arch: ResNetArchitecture, filters: int, path: _Path) -> None:
    for index in (0, 2):
        path.conv(f"conv2d_bn_layers/{index}/conv2d", 3, filters)
        path.norm(f"conv2d_bn_layers/{index + 1}")
    if arch.se_ratio > 0:
        path.conv("se_layer/se_reduce", 1, arch.se_hidden(filters), bias=True)
        path.conv("se_layer/se_expand", 1, filters, bias=True)


def _bottleneck(arch: ResNetArchitecture, filters: int, path: _Path) -> None:
    layers = "conv_relu_dropblock_layers"
    out_filters = filters * arch.expansion
    path.conv(f"{layers}/0/conv2d", 1, filters)
    path.norm(f"{layers}/1")
    if arch.sk_ratio > 0:
        path.conv(f"{layers}/3/conv2d_fixed_padding/conv2d", 3, 2 * filters)
        path.norm(f"{layers}/3/batch_norm_relu")
        path.channels = filters
        path.conv(f"{layers}/3/conv2d_0", 1, arch.sk_hidden(filters))
        path.norm(f"{layers}/3/batch_norm_relu_1")
        path.conv(f"{layers}/3/conv2d_1", 1, 2 * filters)
        path.channels = filters
        last = 5
    else:
        path.conv(f"{layers}/3/conv2d", 3, filters)
        path.norm(f"{layers}/4")
        last = 6
    path.conv(f"{layers}/{last}/conv2d", 1, out_filters)
    path.norm(f"{layers}/{last + 1}")
    if arch.se_ratio > 0:
        path.conv(f"{layers}/{last + 3}/se_reduce", 1, arch.se_hidden(filters), bias=True)
        path.conv(f"{layers}/{last + 3}/se_expand", 1, out_filters, bias=True)


def _block(arch: ResNetArchitecture, group: int, block: int, channels: int) -> list[_Leaf]:
    prefix = f"model/resnet_model/block_groups/{group - 1}/layers/{block}"
    filters = arch.group_filters(group)
    leaves: list[_Leaf] = []
    if block == 0:
        # The TF2 code's basic blocks list the shortcut last, its bottlenecks first.
        name = "projection_layers" if arch.bottleneck else "shortcut_layers"
        rank = (group, block, 0 if arch.bottleneck else 2)
        shortcut = _Path(f"{prefix}/{name}", channels, rank)
        _shortcut(arch, group, shortcut)
        leaves += shortcut.leaves
    main = _Path(prefix, channels, (group, block, 1))
    (_bottleneck if arch.bottleneck else _basic)(arch, filters, main)
    excite = [leaf for leaf in main.leaves if "/se_" in leaf.tf2_path]
    rest = [leaf for leaf in main.leaves if "/se_" not in leaf.tf2_path]
    ranked = [_Leaf(e.kind, e.tf2_path, e.variables, (group, block, 3, e.rank[-1])) for e in excite]
    return leaves + rest + ranked


def _variables(scope: str, leaf: _Leaf) -> Iterator[VariableSpec]:
    for i, (name, shape) in enumerate(leaf.variables.items()):
        yield VariableSpec(
            f"{scope}/{name}",
            shape,
            f"{leaf.tf2_path}/{name}/.ATTRIBUTES/VARIABLE_VALUE",
            name not in MOVING,
            (*leaf.rank, i),
        )


def resnet_variables(arch: ResNetArchitecture) -> list[VariableSpec]:
    """Variables of the backbone in creation order."""
    leaves = _stem(arch)
    channels = arch.base_filters
    for group in range(1, NUM_GROUPS + 1):
        for block in range(arch.blocks_per_group[group - 1]):
            leaves += _block(arch, group, block, channels)
            channels = arch.group_filters(group) * arch.expansion
    numbers = {"conv2d": count(), "batch_normalization": count()}
    specs: list[VariableSpec] = []
    for leaf in leaves:
        number = next(numbers[leaf.kind])
        scope = f"base_model/{leaf.kind}_{number}" if number else f"base_model/{leaf.kind}"
        specs += _variables(scope, leaf)
    return specs


def projection_variables(head: ProjectionArchitecture, feature_dim: int) -> list[VariableSpec]:
    """Variables of the projection head in creation order."""
    specs: list[VariableSpec] = []
    for i in range(head.depth):
        units = head.layer_dim(i, feature_dim)
        names = [n for n in NORM_VARIABLES if n != "beta" or not head.is_last(i)]
        prefix = f"model/_projection_head/linear_layers/{i}"
        scope = f"head_contrastive/{head.layer_name(i)}"
        kernel = {"kernel": (feature_dim, units)}
        norm = dict.fromkeys(names, (units,))
        # The TF2 code tracks the normalisation before the dense layer.
        specs += _variables(f"{scope}/dense", _Leaf("dense", f"{prefix}/dense", kernel, (5, i, 1)))
        leaf = _Leaf("batch_normalization", f"{prefix}/bn_relu/bn", norm, (5, i, 0))
        specs += _variables(f"{scope}/batch_normalization", leaf)
    return specs


def supervised_variables(input_dim: int, num_classes: int) -> list[VariableSpec]:
    """Variables of the supervised head in creation order."""
    shapes: dict[str, Shape] = {"kernel": (input_dim, num_classes), "bias": (num_classes,)}
    leaf = _Leaf("dense", "model/supervised_head/linear_layer/dense", shapes, (6,))
    return list(_variables("head_supervised/linear_layer/dense", leaf))


def model_variables(
    arch: ResNetArchitecture,
    head: ProjectionArchitecture | None = None,
    num_classes: int | None = None,
    ft_proj_selector: int = 0,
) -> list[VariableSpec]:
    """Variables of backbone, projection head and supervised head in creation order.

    Args:
        arch: the backbone.
        head: the projection head; None for the standard one of three layers and 128 outputs.
        num_classes: of the supervised head; None for no such head.
        ft_proj_selector: layer of the projection head below the supervised head.
    """
    head = head or ProjectionArchitecture()
    specs = resnet_variables(arch) + projection_variables(head, arch.feature_dim)
    if num_classes:
        selected = head.selector_index(ft_proj_selector)
        specs += supervised_variables(head.hidden_dim(selected, arch.feature_dim), num_classes)
    return specs


def tf2_trainable_order(specs: list[VariableSpec]) -> list[str]:
    """Names of the trained variables in the order of the TF2 code's `trainable_variables`."""
    return [s.name for s in sorted(specs, key=lambda s: s.tf2_rank) if s.trained]


def tf2_variable_order(specs: Sequence[VariableSpec]) -> list[str]:
    """Names of all variables in the order of the TF2 code's `model.variables`.

    Backbone, projection head and supervised head in turn, each with its trained variables first.
    """
    parts = ("base_model", "head_contrastive", "head_supervised")
    ranked = sorted(
        specs, key=lambda s: (parts.index(s.name.split("/")[0]), not s.trained, s.tf2_rank)
    )
    return [s.name for s in ranked]


_BLOCK = re.compile(r"model/resnet_model/block_groups/(?P<group>\d+)/layers/(?P<block>\d+)/")


def tf2_variable_names(
    specs: Sequence[VariableSpec], norm: str = "sync_batch_normalization"
) -> dict[str, str]:
    """Names that the TF2 code's first network of a process gives its variables.

    Its optimizers and weight decay choose variables by parts of these names
    (`batch_normalization`, `bias`, `head_supervised`).

    Args:
        specs: Variables of a SimCLR network with a ResNet, in creation order.
        norm: Keras' name of the normalization layers: `sync_batch_normalization`, or
            `batch_normalization` without `global_bn`.

    Returns:
        Name in the TF1 graph -> name in TF2 without `:0`, such as
        `resnet/block_group1/residual_block/conv2d_fixed_padding_1/conv2d_1/kernel`.
    """
    numbers: defaultdict[str, count[int]] = defaultdict(count)
    known: dict[tuple[str, str], str] = {}

    def numbered(layer: str, path: str) -> str:
        """The layer's name with its number; the same for the same object-graph path."""
        if (layer, path) not in known:
            number = next(numbers[layer])
            known[layer, path] = f"{layer}_{number}" if number else layer
        return known[layer, path]

    names = {}
    for spec in specs:
        *_, kind, variable = spec.name.split("/")
        kind = re.sub(r"_\d+$", "", kind)
        path = spec.tf2_key.removesuffix(f"/{variable}/.ATTRIBUTES/VARIABLE_VALUE")
        scope = _tf2_scope(spec, path, numbered)
        if kind == "batch_normalization":
            scope += [numbered("batch_norm_relu", path), numbered(norm, path)]
        else:
            if kind == "conv2d" and path.endswith("/conv2d"):
                scope.append(numbered("conv2d_fixed_padding", path))
            scope.append(numbered(kind, path))
        names[spec.name] = "/".join([*scope, variable])
    return names


def _tf2_scope(spec: VariableSpec, path: str, numbered: Callable[[str, str], str]) -> list[str]:
    """The layers around a convolution, dense or normalization layer."""
    top, layer = spec.name.split("/")[:2]
    if top == "head_contrastive":
        return ["projection_head", layer]
    if top == "head_supervised":
        return [top, layer]
    block = _BLOCK.match(path)
    if block is None:
        return ["resnet"]
    inside = path[block.end() :]
    bottleneck = inside.startswith(("projection_layers", "conv_relu_dropblock_layers"))
    kind = "bottleneck_block" if bottleneck else "residual_block"
    scope = ["resnet", f"block_group{int(block['group']) + 1}", numbered(kind, block[0])]
    around, _, last = path.rpartition("/")
    if last.startswith("se_"):
        scope.append(numbered("se__layer", around))
    elif selective := re.match(r"conv_relu_dropblock_layers/3/(?=conv2d_|batch_norm_relu)", inside):
        scope.append(numbered("sk__conv2d", block[0] + selective[0]))
    return scope
