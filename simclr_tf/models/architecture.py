"""What a SimCLRv2 network looks like, as plain numbers: no TensorFlow, no weights.

The models and the analytic list of their variables (`layout.py`) are both made from these.
"""

from dataclasses import dataclass

from data_prep.errors import UserError
from simclr_tf.models.architectures import NUM_GROUPS

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
        """The ResNet-D stem halves the base width, so it needs two channels."""
        return 2 if self.sk_ratio > 0 and not self.cifar_stem else 1

    @property
    def bottleneck(self) -> bool:
        """Whether blocks are 1x1-3x3-1x1 bottlenecks (otherwise two 3x3 convolutions)."""
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
        """Whether the stem has three 3x3 convolutions instead of one 7x7."""
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
        """Whether the layer at this index gives the projection itself."""
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
