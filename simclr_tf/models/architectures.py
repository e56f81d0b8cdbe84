"""Architectures as plain numbers: no TensorFlow, no weights.

The names of the fields are those of the flags of `simclr-run`. Models are built from these numbers,
and so is the list of a ResNet's variables (`variable_layout.py`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from data_prep.errors import UserError

RESNET, HYBRID, KERAS = "resnet", "hybrid", "keras:"
VITS = {"vit_tiny": (192, 3), "vit_small": (384, 6)}  # width, heads
NUM_GROUPS = 4
BACKBONES = (RESNET, *VITS, HYBRID)  # and KERAS with a name
FEATURE_DIM = "feature_dim"  # of a described network, beside the fields

_HYBRID_SIZE = (384, 6)
_DEPTHS = {**dict.fromkeys(VITS, 12), HYBRID: 8}
_REGISTERED: dict[str, type["DescribedArchitecture"]] = {}


class DescribedArchitecture:
    """Base of the architectures: frozen dataclasses with these two fields, and others.

    Attributes:
        backbone: The name that `--backbone` takes.
        image_channels: Channels of the images.
    """

    backbone: str
    image_channels: int

    @property
    def name(self) -> str:
        """A short name for messages and reports."""
        return self.backbone

    def options(self) -> dict[str, Any]:
        """All fields but the images' channels: what `SimCLREncoder` takes as `backbone`."""
        return {name: v for name, v in self.config().items() if name != "image_channels"}

    def facts(self) -> dict[str, Any]:
        """Fields that decide the weights, by the flags of `simclr-run`."""
        return self.options()

    def config(self) -> dict[str, Any]:
        """All fields."""
        own: Any = self
        return asdict(own)


@dataclass(frozen=True)
class _Transformer(DescribedArchitecture):
    backbone: str
    width_multiplier: float = 1.0
    transformer_depth: int = 0
    image_channels: int = 3

    def __post_init__(self) -> None:
        depth = self.transformer_depth or _DEPTHS[self.backbone]
        object.__setattr__(self, "transformer_depth", depth)
        if depth < 1 or depth % self.groups:
            raise UserError(
                f"{self.backbone} deals its blocks out to "
                f"{self.groups} groups; give a multiple of {self.groups}",
                setting="transformer_depth",
                value=depth,
            )
        if self.width_multiplier <= 0:
            raise UserError(
                "must be greater than 0",
                setting="width_multiplier",
                value=f"{self.width_multiplier:g}",
            )

    @property
    def groups(self) -> int:
        """Groups that hold transformer blocks."""
        return NUM_GROUPS

    @property
    def _size(self) -> tuple[int, int]:
        return VITS.get(self.backbone, _HYBRID_SIZE)

    @property
    def blocks(self) -> int:
        """Transformer blocks of a group."""
        return self.transformer_depth // self.groups

    @property
    def heads(self) -> int:
        """Attention heads."""
        return max(1, round(self._size[1] * self.width_multiplier))

    @property
    def width(self) -> int:
        """Length of a token, shared out among the heads and a multiple of 4."""
        step = 4 * self.heads
        return max(1, round(self._size[0] * self.width_multiplier / step)) * step

    @property
    def feature_dim(self) -> int:
        """Length D of the representation."""
        return self.width


@dataclass(frozen=True)
class ViTArchitecture(_Transformer):
    """A vision transformer (Dosovitskiy et al. 2021).

    Widths and heads are those of DeiT (Touvron et al. 2021, table 1), 64 numbers a head. MoCo v3
    (Chen et al. 2021, the authors' code) splits ViT-S into 12 heads, which changes no shape.

    Attributes:
        backbone: `vit_tiny` or `vit_small`.
        width_multiplier: factor on the width, and on the number of heads.
        transformer_depth: blocks, a multiple of the four groups; 0 = 12.
        image_channels: channels of the images.
        patch_size: side of a patch in pixels.
        fixed_patches: keep the random projection of patches as it is drawn (MoCo v3, section 4.2).
    """

    patch_size: int = 16
    fixed_patches: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch_size < 1:
            raise UserError("must be at least 1", setting="patch_size", value=self.patch_size)

    def check_image_size(self, side: int, flag: str) -> None:
        """Raises UserError for images smaller than a patch."""
        if side < self.patch_size:
            raise UserError(
                f"is smaller than a patch of {self.backbone} "
                f"({self.patch_size} px); give larger images or a smaller --patch_size",
                setting=flag,
                value=side,
            )

    def facts(self) -> dict[str, Any]:
        """All options but `fixed_patches`, which changes no weight's shape."""
        return {n: v for n, v in self.options().items() if n != "fixed_patches"}


@dataclass(frozen=True)
class HybridArchitecture(_Transformer):
    """Convolutions first, attention where the maps are small.

    Stem and two block groups of ResNet-18, then two groups of transformer blocks at 1/16 of the
    image's side: stages of a ResNet below a transformer as in Dosovitskiy et al. 2021 (section
    3.1, "Hybrid Architecture"), in the order C-C-T-T of CoAtNet (Dai et al. 2021, section 2.2).
    Early convolutions also make training stable (Xiao et al. 2021), so nothing is kept fixed.

    Attributes:
        backbone: `hybrid`.
        width_multiplier: factor on all widths, and on the number of heads.
        transformer_depth: transformer blocks, a multiple of their two groups; 0 = 8.
        image_channels: channels of the images.
        cifar_stem: 3x3 stride-1 stem without pooling: attention at 1/4 of the image's side.
    """

    cifar_stem: bool = False

    @property
    def groups(self) -> int:
        """Two: the groups before are convolutions."""
        return NUM_GROUPS // 2

    def facts(self) -> dict[str, Any]:
        """All options, with the stem by its flag."""
        known = self.options()
        return {**known, "stem": "cifar" if known.pop("cifar_stem") else "imagenet"}


@dataclass(frozen=True)
class KerasArchitecture(DescribedArchitecture):
    """A network of `keras.applications`.

    Attributes:
        backbone: `keras:` and its name; case and hyphens do not matter.
        image_channels: channels of the images.
    """

    backbone: str
    image_channels: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "backbone", normalize_backbone_name(self.backbone))

    @property
    def application(self) -> str:
        """Its name in `keras.applications`."""
        return self.backbone.removeprefix(KERAS)


def normalize_backbone_name(backbone: str) -> str:
    """The one spelling of a name, so that names can be compared."""
    if not backbone.lower().startswith(KERAS):
        return backbone
    return KERAS + backbone[len(KERAS) :].lower().replace("-", "").replace("_", "")


Architecture: TypeAlias = (
    ViTArchitecture | HybridArchitecture | KerasArchitecture | DescribedArchitecture
)


def register_architecture(name: str, kind: type[DescribedArchitecture]) -> None:
    """Adds the numbers of a backbone, see `simclr_tf.models.registry.register_backbone`.

    Raises:
        ValueError: There is such a backbone.
    """
    if name in (*BACKBONES, *_REGISTERED) or name.startswith(KERAS):
        raise ValueError(f"there is a backbone {name!r}")
    _REGISTERED[name] = kind


def backbone_names() -> tuple[str, ...]:
    """Names of all backbones but those of keras.applications."""
    return (*BACKBONES, *_REGISTERED)


def registered_architecture(name: str) -> type[DescribedArchitecture] | None:
    """The architecture that was registered under a name; None if there is none."""
    return _REGISTERED.get(name)


def architecture_of(options: Mapping[str, Any], image_channels: int) -> Architecture:
    """The architecture of `options()`.

    Args:
        options: `backbone` and other fields; what `describe` adds is passed over.
        image_channels: channels of the images.

    Raises:
        UserError: There is no such backbone, or not of this size.
    """
    own = {k: v for k, v in options.items() if k not in (FEATURE_DIM, "image_channels")}
    kind: Any = _kind(own["backbone"])
    architecture: Architecture = kind(**own, image_channels=image_channels)
    return architecture


def _kind(backbone: str) -> type[Architecture]:
    if backbone in _REGISTERED:
        return _REGISTERED[backbone]
    if backbone in VITS:
        return ViTArchitecture
    if backbone == HYBRID:
        return HybridArchitecture
    if normalize_backbone_name(backbone).startswith(KERAS):
        return KerasArchitecture
    raise UserError(
        f"choose {', '.join(backbone_names())} or {KERAS}NAME "
        f"with a network of keras.applications, such as {KERAS}MobileNetV3Small",
        setting="backbone",
        value=backbone,
    )


BLOCKS_PER_GROUP = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
BASIC_DEPTHS = (18, 34)
PROJECTION_MODES = ("none", "linear", "nonlinear")


@dataclass(frozen=True)
class ResNetArchitecture:
    """A SimCLRv2 ResNet (Chen et al. 2020, "Big Self-Supervised Models", section 2).

    Attributes:
        depth: 18, 34 (basic blocks), 50, 101, 152 or 200 (bottleneck blocks).
        width_multiplier: factor on all channel counts; fractions are allowed.
        sk_ratio: reduction ratio of the selective kernels (Li et al. 2019); 0 switches them and
            the ResNet-D stem and shortcut (He et al. 2018) off, 0.0625 is SimCLRv2's. Basic
            blocks take only the stem and the shortcut.
        se_ratio: reduction ratio of squeeze-and-excitation (Hu et al. 2018); 0 = off.
        cifar_stem: 3x3 stride-1 stem without pooling, for images of 32 px or less.
        image_channels: channels of the input images.
        sk_min_dim: smallest width of the selective kernels' bottleneck.
    """

    depth: int = 50
    width_multiplier: float = 1.0
    sk_ratio: float = 0.0
    se_ratio: float = 0.0
    cifar_stem: bool = False
    image_channels: int = 3
    sk_min_dim: int = 32

    def __post_init__(self) -> None:
        if self.depth not in BLOCKS_PER_GROUP:
            depths = ", ".join(map(str, BLOCKS_PER_GROUP))
            raise UserError(f"there is no ResNet of depth {self.depth}; choose one of {depths}")
        if self.base_filters < self.smallest_base:
            raise UserError(
                f"width_multiplier {self.width_multiplier:g} leaves {self.base_filters} channels; "
                f"it must be at least {self.smallest_base / 64:g}"
            )
        for name in ("sk_ratio", "se_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must lie in [0, 1], not {getattr(self, name):g}")
        if self.image_channels < 1:
            raise UserError(f"image_channels must be at least 1, not {self.image_channels}")

    @property
    def base_filters(self) -> int:
        """Channels of the stem and of the first block group before expansion."""
        return int(64 * self.width_multiplier)

    @property
    def smallest_base(self) -> int:
        """The least base width: 2 for the ResNet-D stem, which halves it, else 1."""
        return 2 if self.sk_ratio > 0 and not self.cifar_stem else 1

    @property
    def bottleneck(self) -> bool:
        """True if blocks are 1x1-3x3-1x1 bottlenecks (otherwise two 3x3 convolutions)."""
        return self.depth not in BASIC_DEPTHS

    @property
    def expansion(self) -> int:
        """Output channels of a block over its inner width."""
        return 4 if self.bottleneck else 1

    @property
    def blocks_per_group(self) -> tuple[int, ...]:
        """Number of residual blocks in each of the four groups."""
        return BLOCKS_PER_GROUP[self.depth]

    def group_filters(self, group: int) -> int:
        """Inner width of the blocks of group 1 to 4."""
        return self.base_filters * 2 ** (group - 1)

    @property
    def feature_dim(self) -> int:
        """Length D of the representation (`final_avg_pool`)."""
        return self.group_filters(NUM_GROUPS) * self.expansion

    @property
    def deep_stem(self) -> bool:
        """True if the stem has three 3x3 convolutions instead of one 7x7."""
        return self.sk_ratio > 0 and not self.cifar_stem

    def sk_hidden(self, filters: int) -> int:
        """Width of the selective kernels' gating layer."""
        return max(int(filters * self.sk_ratio), self.sk_min_dim)

    def se_hidden(self, filters: int) -> int:
        """Width of the squeeze-and-excitation layer."""
        return max(1, int(filters * self.se_ratio))


@dataclass(frozen=True)
class ProjectionArchitecture:
    """The projection head (SimCLRv2, section 2): `num_layers` dense layers with BatchNorm.

    `nonlinear` is the paper's; `linear` is one dense layer with BatchNorm; `none` passes the
    representation on. The last layer has neither bias nor ReLU, and its BatchNorm no offset.
    """

    mode: str = "nonlinear"
    out_dim: int = 128
    num_layers: int = 3

    def __post_init__(self) -> None:
        if self.mode not in PROJECTION_MODES:
            raise UserError(
                f"proj_head_mode is {self.mode!r}; it must be one of {', '.join(PROJECTION_MODES)}"
            )
        if self.out_dim < 1:
            raise UserError(f"proj_out_dim must be at least 1, not {self.out_dim}")
        if self.mode == "nonlinear" and self.num_layers < 1:
            raise UserError(
                f"num_proj_layers must be at least 1, not {self.num_layers}; "
                "for no projection head use proj_head_mode none"
            )

    @property
    def depth(self) -> int:
        """Number of dense layers."""
        return {"none": 0, "linear": 1, "nonlinear": self.num_layers}[self.mode]

    def layer_name(self, index: int) -> str:
        """Name of a layer in checkpoints."""
        return f"{'l' if self.mode == 'linear' else 'nl'}_{index}"

    def is_last(self, index: int) -> bool:
        """True if the layer at this index gives the projection itself."""
        return index == self.depth - 1

    def layer_dim(self, index: int, input_dim: int) -> int:
        """Units of the layer at this index."""
        return self.out_dim if self.is_last(index) else input_dim

    def hidden_dim(self, selected: int, input_dim: int) -> int:
        """Length of the input (0) or of the output of a layer (1 to `depth`)."""
        return self.layer_dim(selected - 1, input_dim) if selected else input_dim

    def selector_index(self, selector: int) -> int:
        """Index in [0, depth] of what `ft_proj_selector` picks; negative counts from the end.

        Raises:
            UserError: if the head has no such layer.
        """
        if not -(self.depth + 1) <= selector <= self.depth:
            raise UserError(
                f"ft_proj_selector {selector} points past the projection head, which has "
                f"{self.depth} layers; choose 0 (its input) to {self.depth} (its output)"
            )
        return selector % (self.depth + 1)


# The stem, the four block groups, the projection head.
PARTS: tuple[str | int, ...] = ("stem", 1, 2, 3, 4, "head")
