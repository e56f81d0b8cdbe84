"""The strategies of `simclr-compare` by name, their rows, and the settings of a comparison.

    scratch                    the network, trained on labels alone
    untrained                  features of the network as it was drawn: a floor
    raw_pixels                 no network: 16 x 16 pixels of each image; a floor, always there
    majority                   no network: the most frequent class; a floor, always there
    imagenet_supervised        a network of keras.applications with ImageNet weights
    imagenet_simclr            a public SimCLR checkpoint
    METHOD                     the network, self-supervised on one's own images: simclr, moco, ...
    METHOD@0.5                 the same on half of these images
    imagenet_simclr+METHOD     the checkpoint, some blocks frozen, trained further in this way
    ...+distill                then a student that learns from the fine-tuned network

`:probe` or `:full` behind a name asks for one of the two heads.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args, get_type_hints

from data_prep.augment.config import ViewSettings
from data_prep.errors import UserError
from data_prep.phrases import did_you_mean
from data_prep.sections import ImageSettings
from data_prep.settings import Config, Presets, preset_values, same_setting, setting
from simclr_tf.config.sections import MethodSettings, ModelSettings

Head = Literal["probe", "full"]
Network = Literal["own", "imagenet_supervised", "imagenet_simclr", "none"]

HEADS: tuple[Head, ...] = ("probe", "full")
METHODS: tuple[str, ...] = get_args(get_type_hints(MethodSettings)["method"])
SCRATCH, UNTRAINED = "scratch", "untrained"
RAW_PIXELS, MAJORITY = "raw_pixels", "majority"
FLOORS = (MAJORITY, RAW_PIXELS)
"""What every comparison carries beside its strategies: no network stands behind them."""
SUPERVISED, PUBLIC = "imagenet_supervised", "imagenet_simclr"
SCRATCH_FACTOR = 3
"""Updates of training from scratch for each of fine-tuning: it starts from nothing."""

_DISTILL = "+distill"


@dataclass(frozen=True)
class Encoder:
    """The source of a strategy's features: work that its rows share.

    Attributes:
        name: `untrained`, `simclr`, `imagenet_simclr+simclr@0.5`, ...
        network: Which network.
        method: Of self-supervision on one's own images; "" = none.
        share: Of these images.
    """

    name: str
    network: Network
    method: str = ""
    share: float = 1.0

    @property
    def random(self) -> bool:
        """True if the weights are drawn anew for every seed."""
        return self.network == "own" and not self.method

    @property
    def is_floor(self) -> bool:
        """True if there is no network: a floor computed from pixels or labels alone."""
        return self.network == "none"

    @property
    def slug(self) -> str:
        """A name for files."""
        return re.sub(r"[^A-Za-z0-9_.]+", "-", self.name)


@dataclass(frozen=True)
class StrategyRow:
    """One line of the comparison: an encoder with a head.

    Attributes:
        encoder: The encoder that it uses.
        head: A linear probe on its features, or the whole network fine-tuned.
        distill: Whether a student of the fine-tuned network is scored in its place.
        title: Name to show; "" = made of the others.
        scratch_factor: Updates from scratch for each of fine-tuning.
    """

    encoder: Encoder
    head: Head
    distill: bool = False
    title: str = field(default="", compare=False)
    scratch_factor: int = field(default=SCRATCH_FACTOR, compare=False)

    @property
    def name(self) -> str:
        """The name of the row in tables."""
        if self.title:
            return self.title
        if self.encoder.random:
            return UNTRAINED if self.head == "probe" else SCRATCH + _DISTILL * self.distill
        if self.encoder.is_floor:
            return self.encoder.name
        how = "linear probe" if self.head == "probe" else "fine-tuned"
        return f"{self.encoder.name} ({'distilled' if self.distill else how})"

    @property
    def slug(self) -> str:
        """A name for files."""
        what = SCRATCH if self.encoder.random and self.head == "full" else self.encoder.slug
        return f"{what}-{'distill' if self.distill else self.head}"

    @property
    def factor(self) -> int:
        """Updates of a fit for each of fine-tuning."""
        return self.scratch_factor if self.encoder.random and self.head == "full" else 1


def parse_strategies(names: Sequence[str], heads: Sequence[str] = HEADS) -> tuple[StrategyRow, ...]:
    """The rows that names ask for, each once.

    Args:
        names: As listed at the top of this module.
        heads: Heads of the strategies that do not name one.

    Raises:
        UserError: An unknown name, or a head that a strategy cannot have.
    """
    wrong = [head for head in heads if head not in HEADS]
    if wrong or not heads:
        raise UserError("give probe, full or both", setting="heads", value=",".join(heads))
    rows: dict[StrategyRow, None] = {}
    for name in names:
        for row in _rows(name.strip(), tuple(heads)):
            rows.setdefault(row)
    if not rows:
        raise UserError("give one at least, such as simclr", setting="strategies")
    return tuple(rows)


def _rows(name: str, heads: Sequence[str]) -> list[StrategyRow]:
    strategy, colon, asked = name.partition(":")
    if colon and asked not in HEADS:
        raise UserError(
            f"{name}: behind the colon there may be probe or full", setting="strategies"
        )
    distill = strategy.endswith(_DISTILL)
    base = strategy.removesuffix(_DISTILL)
    only: dict[str, Head] = {SCRATCH: "full", UNTRAINED: "probe", **dict.fromkeys(FLOORS, "probe")}
    possible = (only[base],) if base in only else HEADS
    if distill:
        possible = ("full",)
    if (distill and base in (UNTRAINED, SUPERVISED, *FLOORS)) or (asked and asked not in possible):
        kind = (
            "has no features to fine-tune"
            if base in (UNTRAINED, *FLOORS)
            else "does not go together"
        )
        raise UserError(f"{name}: {kind}; leave the part behind the name out", setting="strategies")
    encoder = _encoder(base)
    # A strategy with one head has that one whatever --heads says.
    chosen = (asked,) if asked else heads if len(possible) > 1 else possible
    return [StrategyRow(encoder, head, distill) for head in possible if head in chosen]


def _encoder(base: str) -> Encoder:
    if base in (SCRATCH, UNTRAINED):
        return Encoder(UNTRAINED, "own")
    if base in FLOORS:
        return Encoder(base, "none")
    if base in (SUPERVISED, PUBLIC):
        return Encoder(base, base)  # type: ignore[arg-type]
    first, plus, rest = base.partition("+")
    network: Network = "imagenet_simclr" if plus else "own"
    method, at, text = (rest if plus else first).partition("@")
    if (plus and first != PUBLIC) or method not in METHODS:
        raise _unknown(base)
    try:
        share = float(text) if at else 1.0
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UserError(
            f"{base}: behind @ goes a share of the images, such as 0.5", setting="strategies"
        )
    return Encoder(base, network, method, share)


def _unknown(base: str) -> UserError:
    known = [SCRATCH, UNTRAINED, SUPERVISED, PUBLIC, *METHODS, *FLOORS]
    hint = did_you_mean(base, known)
    return UserError(
        f"{base} is none of {', '.join(known)}, imagenet_simclr+METHOD{hint}", setting="strategies"
    )


def with_floors(rows: Sequence[StrategyRow]) -> tuple[StrategyRow, ...]:
    """The rows and, at their end, the floors that no network stands behind."""
    floors = parse_strategies(FLOORS)
    return (*(row for row in rows if not row.encoder.is_floor), *floors)


# Mamode, Hampson and John (2025, Applied Computing and Geosciences 25): the README of their code
# numbers three procedures (1, 5, 6), (2) and (3, 4, 6); a head on labels ends each of them. 6
# has both transfer and own images: it is the comparison itself, so the rows carry its number.
# Their subsets of the own images (20 to 80 %) stand here as one half.
# What unlabelled images are worth: one network, with and without them. Floor, scratch and ours.
PRETRAINED_OR_NOT = {
    "untrained:probe": "untrained features, linear probe",
    "scratch:full": "from scratch",
    "simclr:probe": "pretrained, linear probe",
    "simclr:full": "pretrained, fine-tuned",
}
PRESETS: Presets = {
    "six_experiments": {
        "imagenet_simclr:probe": "experiments 1 and 6: head on ImageNet SimCLRv2",
        "imagenet_simclr+simclr:probe": "experiment 2: ImageNet SimCLRv2 trained further",
        "simclr:probe": "experiments 3 and 6: SimCLRv2 on own images",
        "simclr@0.5:probe": "experiment 4: SimCLRv2 on half of them",
        "imagenet_supervised:probe": "experiments 5 and 6: head on supervised ImageNet",
    },
    "demo": PRETRAINED_OR_NOT,
}
"""Titles of strategies by their names, by the name of the preset."""


def preset_rows(name: str) -> tuple[StrategyRow, ...]:
    """The rows of a preset, each with the title that says which experiment it is.

    Raises:
        UserError: There is no such preset.
    """
    titles = preset_values(name, PRESETS)
    rows = ((parse_strategies([text])[0], title) for text, title in titles.items())
    return tuple(StrategyRow(row.encoder, row.head, row.distill, title) for row, title in rows)


@dataclass(frozen=True)
class ComparedImages(ImageSettings):
    """Images."""

    group_by: str = setting("", "What must not be torn apart, see simclr-split.")
    test_share: float = setting(0.2, "Share that is sealed, if the images have no split test.")


@dataclass(frozen=True)
class StrategySettings:
    """Strategies."""

    strategies: tuple[str, ...] = setting(
        (SCRATCH, UNTRAINED, SUPERVISED, PUBLIC, "simclr"), "What is compared, see above."
    )
    heads: tuple[str, ...] = setting(HEADS, "Heads of those that name none.")
    preset: Literal["", "six_experiments", "demo"] = setting(
        "",
        "Instead: the experiments of a published study on drill cores; or the rows of simclr-demo.",
    )
    backbone: str = setting("vgg16", "Network of imagenet_supervised.")
    imagenet_weights: str = setting("", "File of its weights, 'notop'.")
    imagenet_checkpoint: str = setting(
        "", "Public SimCLR checkpoint: a path or a name of simclr-zoo."
    )
    download: bool = setting(False, "Fetch weights that are not here.")
    frozen_blocks: int = setting(
        2,
        "imagenet_simclr+METHOD: freeze the stem and so many block groups; -1 = nothing.",
        low=-1,
        high=3,
    )
    label_fractions: tuple[float, ...] = setting((0.01, 0.05, 0.1, 1.0), "Shares of the labels.")
    labels_per_class: tuple[int, ...] = setting(
        (), "Beside them: so many labels of every class, as 5,20.", low=1
    )
    folds: int = setting(3, "Repetitions with other labels.", low=1)
    seeds: int = setting(1, "Repetitions of each fold.", low=1)
    seed: int = setting(0, "Seed of everything.", low=0)
    metric: Literal["balanced_accuracy", "accuracy", "macro_f1", "roc_auc"] = setting(
        "balanced_accuracy", "What counts."
    )


@dataclass(frozen=True)
class SizeSettings:
    """Budget and sizes."""

    minutes: float = setting(
        0.0,
        "Budget: what of the following is 0 is planned for it, by timing a few steps first.",
        low=0,
    )
    image_size: int = setting(0, "Side of the network's input; 0 = planned, or 64.", low=0)
    imagenet_image_size: int = setting(0, "The same for networks with ImageNet weights.", low=0)
    pretrain_steps: int = setting(0, "Updates of a pretraining; 0 = planned, or 700.", low=0)
    finetune_steps: int = setting(0, "Updates of a fine-tuning; 0 = planned, or 80.", low=0)
    scratch_factor: int = setting(
        SCRATCH_FACTOR, "Updates from scratch for each of a fine-tuning.", low=1
    )
    resnet_depth: int = same_setting(
        ModelSettings, "resnet_depth", "Depth of the own network.", default=18
    )
    width_multiplier: float = setting(0.0, "Its width; 0 = planned, or 0.375.", low=0)


@dataclass(frozen=True)
class PlainViewSettings:
    """Augmentation."""

    vertical_flip: bool = same_setting(ViewSettings, "vertical_flip", "Mirror up-down, too.")
    right_angle_rotation: bool = same_setting(
        ViewSettings, "right_angle_rotation", "Turn by right angles, too."
    )
    color_jitter_strength: float = same_setting(
        ViewSettings, "color_jitter_strength", "Of pretraining."
    )
    min_crop_area: float = same_setting(
        ViewSettings, "min_crop_area", "Least share of the area of a crop.", default=0.2
    )
    central_crop: float = same_setting(
        ViewSettings, "central_crop", "Central share that is kept; 0 = all."
    )


@dataclass(frozen=True)
class CompareSettings(Config):
    """Everything that decides the numbers of a comparison."""

    images: ComparedImages = field(default_factory=ComparedImages)
    design: StrategySettings = field(default_factory=StrategySettings)
    sizes: SizeSettings = field(default_factory=SizeSettings)
    augment: PlainViewSettings = field(default_factory=PlainViewSettings)

    @property
    def classes_count_the_same(self) -> bool:
        """True if the metric weighs classes alike, however many images they have."""
        return self.design.metric != "accuracy"

    def rows(self) -> tuple[StrategyRow, ...]:
        """The rows to compare, floors included."""
        d = self.design
        asked = preset_rows(d.preset) if d.preset else parse_strategies(d.strategies, d.heads)
        return with_floors(
            [replace(row, scratch_factor=self.sizes.scratch_factor) for row in asked]
        )

    def deciding(self) -> dict[str, Any]:
        """The settings that decide the numbers, as flat name-value pairs."""
        values = self.values()
        return {s.name: values[s.name] for s in CompareSettings.settings()}

    def validate(self) -> None:
        """Checks what can be checked without looking at images.

        Raises:
            UserError: With the setting, its value and what would be right.
        """
        super().validate()
        design, sizes = self.design, self.sizes
        if all(row.encoder.is_floor for row in self.rows()):
            raise UserError(
                "these are floors, which are always there; give a strategy, such as simclr",
                setting="strategies",
                value=design.strategies,
            )
        self.images.check_given()
        shares = design.label_fractions
        if not (shares or design.labels_per_class) or not all(0 < share <= 1 for share in shares):
            text = ",".join(f"{share:g}" for share in shares)
            raise UserError(
                "give shares above 0 up to 1, as 0.1,1", setting="label_fractions", value=text
            )
        share = self.images.test_share
        if not 0 < share < 1:
            raise UserError("must be between 0 and 1", setting="test_share", value=f"{share:g}")
        if sizes.minutes and sizes.pretrain_steps and sizes.finetune_steps:
            raise UserError(
                "--minutes plans the number of steps; leave it out, or one of --pretrain_steps"
                " and --finetune_steps"
            )


@dataclass(frozen=True)
class CompareOutput:
    """Output."""

    output: str = setting("", "Folder of the comparison.", required=True)
    overwrite: bool = setting(False, "Delete an earlier comparison there.")
    parallel: int = setting(1, "Strategies at the same time, each with a GPU of its own.", low=1)
    plan_only: bool = setting(False, "Divide the images, plan, and stop.")
    only: tuple[str, ...] = setting(
        (),
        "Work on these encoders alone and write no report, such as simclr: for several machines "
        "with one folder, once the plan is made.",
    )


@dataclass(frozen=True)
class CompareConfig(CompareSettings):
    """All settings of `simclr-compare`."""

    output: CompareOutput = field(default_factory=CompareOutput)
