"""The network of a checkpoint from names and shapes: depth, width, SK, SE, stem and heads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_prep.errors import UserError
from simclr_tf.checkpoints.read import SUFFIX, Naming, Shape, StoredWeights
from simclr_tf.models.architectures import (
    BLOCKS_PER_GROUP,
    FEATURE_DIM,
    NUM_GROUPS,
    Architecture,
    ProjectionArchitecture,
    ResNetArchitecture,
    architecture_of,
)
from simclr_tf.models.variable_layout import (
    VariableSpec,
    projection_variables,
    resnet_variables,
    supervised_variables,
)
from simclr_tf.models.variable_names import OWN_BACKBONE

SK_RATIO = 0.0625  # of every published network with selective kernels
_BACKBONE = {"canonical": "base_model/", "tf2_key": "model/resnet_model/"}
_PROJECTION = {"canonical": "head_contrastive/", "tf2_key": "model/_projection_head/"}
_SUPERVISED = {"canonical": "head_supervised/", "tf2_key": "model/supervised_head/"}


@dataclass(frozen=True)
class IdentifiedNetwork:
    """A recognised network.

    Attributes:
        architecture: The backbone.
        projection: The projection head; mode `none` if there is none.
        num_classes: Of the supervised head; None without one.
        ft_proj_selector: Layer of the projection head below the supervised head.
        weights: Name of every variable of the network in the file, by its name in the TF1 graph.
        assumed: What the shapes leave open, and what was taken.
    """

    architecture: ResNetArchitecture | Architecture
    projection: ProjectionArchitecture
    num_classes: int | None
    ft_proj_selector: int
    weights: Mapping[str, str]
    assumed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A short name in the style of the public checkpoints, such as `r50_1x_sk1`."""
        return architecture_name(self.architecture)

    def encoder_arguments(self) -> dict[str, Any]:
        """Arguments of `SimCLREncoder`."""
        a, p = self.architecture, self.projection
        if isinstance(a, ResNetArchitecture):
            backbone: dict[str, Any] = {
                "depth": a.depth,
                "width_multiplier": a.width_multiplier,
                "sk_ratio": a.sk_ratio,
                "se_ratio": a.se_ratio,
                "cifar_stem": a.cifar_stem,
                "sk_min_dim": a.sk_min_dim,
            }
        else:
            backbone = {"backbone": a.options()}
        return {
            **backbone,
            "image_channels": a.image_channels,
            "proj_head_mode": p.mode,
            "proj_out_dim": p.out_dim,
            "num_proj_layers": p.num_layers,
        }


def architecture_name(a: ResNetArchitecture | Architecture) -> str:
    """A short name of a backbone in the style of the public checkpoints, such as `r50_1x_sk1`."""
    if not isinstance(a, ResNetArchitecture):
        return a.name
    name = f"r{a.depth}_{a.width_multiplier:g}x_sk{int(a.sk_ratio > 0)}"
    name += "_se" if a.se_ratio else ""
    return name + ("_cifar" if a.cifar_stem else "")


def recognize(stored: StoredWeights) -> IdentifiedNetwork:
    """Finds the network whose variables are exactly those of a checkpoint.

    Args:
        stored: The checkpoint.

    Returns:
        The network.

    Raises:
        UserError: There is no such network; the nearest one is named with what differs, or there
            are tensors that nothing explains.
    """
    unknown = [x for x in stored.left_out if not x.why]
    if stored.description:
        return _described(stored)
    backbone = _under(stored, _BACKBONE)
    if not backbone:
        if any(x.tensor.startswith("classifier/") for x in stored.left_out):
            raise UserError(
                "is of a run of simclr-transfer, which holds no SimCLR"
                " network; simclr-predict and simclr-export take the folder of such a run once it"
                " is complete: give its command again",
                setting="checkpoint",
                value=stored.path,
            )
        held = ", ".join(list(stored.shapes)[:3] or [x.tensor for x in unknown[:3]]) or "nothing"
        raise UserError(
            f"is of no SimCLR network (it holds {held})", setting="checkpoint", value=stored.path
        )
    if unknown:
        raise UserError(
            f"{len(unknown)} tensors belong to no SimCLR network, "
            f"such as {unknown[0].tensor} {unknown[0].shape}",
            setting="checkpoint",
            value=stored.path,
        )
    architecture, weights = _match_backbone(stored, backbone)
    assumed = []
    if architecture.depth in (18, 34) and architecture.cifar_stem and stored.naming == "canonical":
        assumed.append("sk_ratio 0: with basic blocks and this stem, names and shapes do not tell")
    projection, more = _match_projection(stored, architecture.feature_dim)
    weights |= more
    classes, selector, more = _match_supervised(stored, architecture.feature_dim, projection)
    if classes and selector == 0 and projection.depth > 1:
        assumed.append("ft_proj_selector 0: hidden layers of the projection head are as wide")
    return IdentifiedNetwork(
        architecture, projection, classes, selector, weights | more, tuple(assumed)
    )


def _described(stored: StoredWeights) -> IdentifiedNetwork:
    """The network of a file that says what it is."""
    facts = stored.description
    feature_dim = facts[FEATURE_DIM]
    projection, heads = _match_projection(stored, feature_dim)
    classes, selector, more = _match_supervised(stored, feature_dim, projection)
    prefix = _BACKBONE["canonical"]
    here = prefix if stored.naming == "canonical" else OWN_BACKBONE
    weights = {
        prefix + name.removeprefix(here): name for name in stored.shapes if name.startswith(here)
    }
    architecture = architecture_of(facts, facts["image_channels"])
    return IdentifiedNetwork(architecture, projection, classes, selector, weights | heads | more)


def _under(stored: StoredWeights, prefixes: Mapping[str, str]) -> dict[str, Shape]:
    prefix = prefixes[stored.naming]
    return {name: shape for name, shape in stored.shapes.items() if name.startswith(prefix)}


def stored_name(spec: VariableSpec, naming: Naming) -> str:
    """The name of a variable in a file of this naming."""
    return spec.name if naming == "canonical" else spec.tf2_key.removesuffix(SUFFIX)


def _match_backbone(
    stored: StoredWeights, held: Mapping[str, Shape]
) -> tuple[ResNetArchitecture, dict[str, str]]:
    nearest: tuple[int, ResNetArchitecture | None, str] = (-1, None, "")
    for candidate in _candidates(held):
        wanted = {stored_name(s, stored.naming): s for s in resnet_variables(candidate)}
        differing = [n for n in wanted if held.get(n) != wanted[n].shape]
        differing += [n for n in held if n not in wanted]
        if not differing:
            return candidate, {spec.name: name for name, spec in wanted.items()}
        if nearest[1] is None or len(differing) < nearest[0]:
            first = differing[0]
            there = held.get(first, "missing")
            here = wanted[first].shape if first in wanted else "nothing"
            text = f"{first} is {there} where {architecture_name(candidate)} has {here}"
            nearest = (len(differing), candidate, text)
    count, _, text = nearest
    more = f", and {count - 1} more differ" if count > 1 else ""
    raise UserError(
        f"is of no SimCLR ResNet; nearest: {text}{more}" if text else "holds no first convolution",
        setting="checkpoint",
        value=stored.path,
    )


def _candidates(held: Mapping[str, Shape]) -> Iterator[ResNetArchitecture]:
    """Every network that the first convolution and the widths of the gates allow."""
    kernels = {name: shape for name, shape in held.items() if name.endswith("kernel")}
    first = next((kernels[n] for n in _FIRST_KERNELS if n in kernels), None)
    if first is None or len(first) != 4:
        return
    gated = any(name.endswith("bias") for name in held)
    for depth in BLOCKS_PER_GROUP:
        for cifar_stem in (False, True):
            for selective in (False, True):
                base = first[3] * (2 if selective and not cifar_stem else 1)
                for sk_ratio in _sk_ratios(kernels, base) if selective else (0.0,):
                    for se_ratio in _se_ratios(held, base, depth) if gated else (0.0,):
                        yield ResNetArchitecture(
                            depth, base / 64, sk_ratio, se_ratio, cifar_stem, first[2]
                        )


_FIRST_KERNELS = (
    "base_model/conv2d/kernel",
    "model/resnet_model/initial_conv_relu_max_pool/0/conv2d/kernel",
)


def _sk_ratios(kernels: Mapping[str, Shape], base: int) -> list[float]:
    """The published ratio first, then what the gates of the last group may say."""
    filters = base * 2 ** (NUM_GROUPS - 1)
    hidden = {s[3] for s in kernels.values() if s[:3] == (1, 1, filters) and s[3] < filters}
    return [SK_RATIO, *sorted({h / filters for h in hidden} - {SK_RATIO})]


def _se_ratios(held: Mapping[str, Shape], base: int, depth: int) -> list[float]:
    filters = base * 2 ** (NUM_GROUPS - 1)
    width = filters * (1 if depth in (18, 34) else 4)
    pairs = ((shape, held.get(name.removesuffix("kernel") + "bias"))
             for name, shape in held.items() if name.endswith("kernel"))  # fmt: skip
    hidden = {s[3] for s, bias in pairs if bias and s[:3] == (1, 1, width) and s[3] <= filters}
    return sorted(h / filters for h in hidden)


def _match_projection(
    stored: StoredWeights, feature_dim: int
) -> tuple[ProjectionArchitecture, dict[str, str]]:
    held = _under(stored, _PROJECTION)
    if not held:
        return ProjectionArchitecture("none"), {}
    kernels = [shape for name, shape in held.items() if name.endswith("dense/kernel")]
    mode = "linear" if "head_contrastive/l_0/dense/kernel" in held else "nonlinear"
    widths = sorted({shape[1] for shape in kernels if len(shape) == 2} - {feature_dim})
    head = ProjectionArchitecture(mode, widths[0] if widths else feature_dim, max(1, len(kernels)))
    wanted = {stored_name(s, stored.naming): s for s in projection_variables(head, feature_dim)}
    _refuse_misfit(stored, held, wanted, f"projection head of {head.depth} layers")
    return head, {spec.name: name for name, spec in wanted.items()}


def _match_supervised(
    stored: StoredWeights, feature_dim: int, head: ProjectionArchitecture
) -> tuple[int | None, int, dict[str, str]]:
    held = _under(stored, _SUPERVISED)
    kernel = next((s for n, s in held.items() if n.endswith("kernel") and len(s) == 2), None)
    if kernel is None:
        return None, 0, {}
    width, classes = kernel
    fits = [i for i in range(head.depth + 1) if width == head.hidden_dim(i, feature_dim)]
    if not fits:
        raise UserError(
            f"its supervised head takes {width} features; the backbone gives {feature_dim}",
            setting="checkpoint",
            value=stored.path,
        )
    wanted = {stored_name(s, stored.naming): s for s in supervised_variables(width, classes)}
    _refuse_misfit(stored, held, wanted, "supervised head")
    return classes, fits[0], {spec.name: name for name, spec in wanted.items()}


def _refuse_misfit(
    stored: StoredWeights,
    held: Mapping[str, Shape],
    wanted: Mapping[str, VariableSpec],
    what: str,
) -> None:
    for name in sorted({*held, *wanted}):
        shape = wanted[name].shape if name in wanted else "not there"
        if held.get(name, "missing") != shape:
            raise UserError(
                f"{name} is {held.get(name, 'missing')}; in a {what} it is {shape}",
                setting="checkpoint",
                value=stored.path,
            )
