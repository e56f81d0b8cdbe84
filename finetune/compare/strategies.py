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

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args, get_type_hints

from data_prep.errors import UserError
from simclr_tf.config.sections import MethodSettings

Head = Literal["probe", "full"]
Network = Literal["own", "imagenet_supervised", "imagenet_simclr", "none"]

HEADS: tuple[Head, ...] = ("probe", "full")
METHODS: tuple[str, ...] = get_args(get_type_hints(MethodSettings)["method"])
SCRATCH, UNTRAINED = "scratch", "untrained"
RAW_PIXELS, MAJORITY = "raw_pixels", "majority"
FLOORS = (MAJORITY, RAW_PIXELS)
"""What every comparison carries beside its strategies: no network stands behind them."""
SUPERVISED, PUBLIC = "imagenet_supervised", "imagenet_simclr"
DEFAULT = (SCRATCH, UNTRAINED, SUPERVISED, PUBLIC, "simclr")
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
class Row:
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


def parse_strategies(names: Sequence[str], heads: Sequence[str] = HEADS) -> tuple[Row, ...]:
    """The rows that names ask for, each once.

    Args:
        names: As listed at the top of this module.
        heads: Heads of the strategies that do not name one.

    Raises:
        UserError: An unknown name, or a head that a strategy cannot have.
    """
    wrong = [head for head in heads if head not in HEADS]
    if wrong or not heads:
        raise UserError(f"--heads={','.join(heads)}: give probe, full or both")
    rows: dict[Row, None] = {}
    for name in names:
        for row in _rows(name.strip(), tuple(heads)):
            rows.setdefault(row)
    if not rows:
        raise UserError("--strategies: give one at least, such as simclr")
    return tuple(rows)


def _rows(name: str, heads: Sequence[str]) -> list[Row]:
    strategy, colon, asked = name.partition(":")
    if colon and asked not in HEADS:
        raise UserError(f"--strategies: {name}: behind the colon there may be probe or full")
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
        raise UserError(f"--strategies: {name}: {kind}; leave the part behind the name out")
    encoder = _encoder(base)
    # A strategy with one head has that one whatever --heads says.
    chosen = (asked,) if asked else heads if len(possible) > 1 else possible
    return [Row(encoder, head, distill) for head in possible if head in chosen]


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
        raise UserError(f"--strategies: {base}: behind @ goes a share of the images, such as 0.5")
    return Encoder(base, network, method, share)


def _unknown(base: str) -> UserError:
    known = [SCRATCH, UNTRAINED, SUPERVISED, PUBLIC, *METHODS, *FLOORS]
    near = difflib.get_close_matches(base, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return UserError(
        f"--strategies: {base} is none of {', '.join(known)}, imagenet_simclr+METHOD{hint}"
    )


def with_floors(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows and, at their end, the floors that no network stands behind."""
    floors = parse_strategies(FLOORS)
    return (*(row for row in rows if not row.encoder.is_floor), *floors)


# Mamode, Hampson and John (2025, Applied Computing and Geosciences 25): the README of their code
# numbers three procedures (1, 5, 6), (2) and (3, 4, 6); a head on labels ends each of them. 6
# has both transfer and own images: it is the comparison itself, so the rows carry its number.
# Their subsets of the own images (20 to 80 %) stand here as one half.
_SIX: tuple[tuple[str, str], ...] = (
    ("imagenet_simclr:probe", "experiments 1 and 6: head on ImageNet SimCLRv2"),
    ("imagenet_simclr+simclr:probe", "experiment 2: ImageNet SimCLRv2 trained further"),
    ("simclr:probe", "experiments 3 and 6: SimCLRv2 on own images"),
    ("simclr@0.5:probe", "experiment 4: SimCLRv2 on half of them"),
    ("imagenet_supervised:probe", "experiments 5 and 6: head on supervised ImageNet"),
)
# What unlabelled images are worth: one network, with and without them. Floor, scratch and ours.
PRETRAINED_OR_NOT = {
    "untrained:probe": "untrained features, linear probe",
    "scratch:full": "from scratch",
    "simclr:probe": "pretrained, linear probe",
    "simclr:full": "pretrained, fine-tuned",
}
PRESETS = {"six_experiments": _SIX, "demo": tuple(PRETRAINED_OR_NOT.items())}


def preset_rows(name: str) -> tuple[Row, ...]:
    """The rows of a preset, each with the title that says which experiment it is.

    Raises:
        UserError: There is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"--preset={name}: there are {', '.join(PRESETS)}")
    rows = ((parse_strategies([text])[0], title) for text, title in PRESETS[name])
    return tuple(Row(row.encoder, row.head, row.distill, title) for row, title in rows)


METRICS = ("balanced_accuracy", "accuracy", "macro_f1", "roc_auc")


@dataclass(frozen=True)
class CompareSettings:
    """Everything that decides the numbers of a comparison.

    Attributes:
        image_dir: Folder of class folders; or
        manifest: a CSV that lists the images.
        skip_unreadable: Leave unreadable images out.
        group_by: Column or regular expression that groups images, see `keep_together`.
        test_share: Share of the images that is sealed for the test, if they have no test split.
        strategies: Names, see `parse_strategies`.
        heads: Heads of those that name none.
        preset: Rows of a published work instead.
        label_fractions: Shares of a fold's labelled training images that keep their labels.
        labels_per_class: Further amounts of labels: so many of every class.
        folds: Each leaves another part of the training images out; 1 = all are trained on.
        seeds: Repetitions of every fold with other labels and weights.
        seed: Of everything.
        minutes: Budget that sizes are planned for; 0 = none, the sizes are those below.
        image_size: Side of the network's input in pixels; 0 = planned, or 64.
        imagenet_image_size: The same for networks with ImageNet weights.
        resnet_depth: Depth of one's own network.
        width_multiplier: Its width; 0 = planned, or 0.375.
        pretrain_steps: Updates of a pretraining; 0 = planned, or 700.
        finetune_steps: Updates of a fine-tuning; 0 = planned, or 80.
        scratch_factor: Updates from scratch for each of fine-tuning.
        backbone: Of `imagenet_supervised`: a network of keras.applications.
        imagenet_weights: File of its weights without the classification head.
        download: Let Keras download them, or fetch a checkpoint of the zoo.
        imagenet_checkpoint: Of `imagenet_simclr`: a path, or a name that simclr-zoo lists.
        frozen_blocks: Of `imagenet_simclr+...`: what stays frozen, see `--fine_tune_after_block`.
        vertical_flip: Whether images may be mirrored up-down.
        right_angle_rotation: Whether they may be turned by right angles.
        color_jitter_strength: Of pretraining.
        min_crop_area: Smallest share of an image's area that a crop may have.
        central_crop: Central share of an image that is kept before anything else; 0 = all.
        metric: The metric that strategies are compared by.
    """

    image_dir: str = ""
    manifest: str = ""
    skip_unreadable: bool = False
    group_by: str = ""
    test_share: float = 0.2
    strategies: tuple[str, ...] = DEFAULT
    heads: tuple[str, ...] = HEADS
    preset: str = ""
    label_fractions: tuple[float, ...] = (0.01, 0.05, 0.1, 1.0)
    labels_per_class: tuple[int, ...] = ()
    folds: int = 3
    seeds: int = 1
    seed: int = 0
    minutes: float = 0.0
    image_size: int = 0
    imagenet_image_size: int = 0
    resnet_depth: int = 18
    width_multiplier: float = 0.0
    pretrain_steps: int = 0
    finetune_steps: int = 0
    scratch_factor: int = SCRATCH_FACTOR
    backbone: str = "vgg16"
    imagenet_weights: str = ""
    download: bool = False
    imagenet_checkpoint: str = ""
    frozen_blocks: int = 2
    vertical_flip: bool = False
    right_angle_rotation: bool = False
    color_jitter_strength: float = 1.0
    min_crop_area: float = 0.2
    central_crop: float = 0.0
    metric: str = METRICS[0]

    @property
    def classes_count_the_same(self) -> bool:
        """True if the metric weighs classes alike, however many images they have."""
        return self.metric != "accuracy"

    def rows(self) -> tuple[Row, ...]:
        """The rows to compare, floors included."""
        asked = (
            preset_rows(self.preset)
            if self.preset
            else parse_strategies(self.strategies, self.heads)
        )
        return with_floors([replace(row, scratch_factor=self.scratch_factor) for row in asked])

    def validate(self) -> None:
        """Checks what can be checked without looking at images.

        Raises:
            UserError: With the flag, its value and what would be right.
        """
        if all(row.encoder.is_floor for row in self.rows()):
            raise UserError(
                f"--strategies={','.join(self.strategies)}: these are floors, which are always"
                " there; give a strategy, such as simclr"
            )
        if not self.image_dir and not self.manifest:
            raise UserError("give either --image_dir=FOLDER or --manifest=FILE")
        shares = self.label_fractions
        counts = self.labels_per_class
        if any(number < 1 for number in counts):
            text = ",".join(map(str, counts))
            raise UserError(f"--labels_per_class={text}: give numbers of 1 or more, as 5,20")
        if not (shares or counts) or not all(0 < share <= 1 for share in shares):
            text = ",".join(f"{share:g}" for share in shares)
            raise UserError(f"--label_fractions={text}: give shares above 0 up to 1, as 0.1,1")
        if not 0 < self.test_share < 1:
            raise UserError(f"--test_share={self.test_share:g}: must be between 0 and 1")
        if self.metric not in METRICS:
            raise UserError(f"--metric={self.metric}: choose one of {', '.join(METRICS)}")
        if self.minutes and self.pretrain_steps and self.finetune_steps:
            raise UserError(
                "--minutes plans the number of steps; leave it out, or one of --pretrain_steps"
                " and --finetune_steps"
            )
