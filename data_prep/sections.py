"""The settings of the commands that prepare images: sections, and the configurations of them."""

from dataclasses import dataclass, field
from typing import Literal

from data_prep.errors import UserError
from data_prep.manifest.read_options import Declaration
from data_prep.settings import Config, setting


@dataclass(frozen=True)
class ListedImages:
    """Images."""

    image_dir: str = setting(
        "", "Folder of images: CLASS/FILE, SPLIT/CLASS/FILE, or images without classes."
    )
    manifest: str = setting(
        "", "Or a CSV that lists them (column path); --image_dir is then where they lie now."
    )

    def check_given(self) -> None:
        """Checks that a folder or a manifest is given.

        Raises:
            UserError: Neither is.
        """
        if not self.image_dir and not self.manifest:
            raise UserError("give either --image_dir=FOLDER or --manifest=FILE")


@dataclass(frozen=True)
class ImageSettings(ListedImages):
    """Images."""

    skip_unreadable: bool = setting(False, "Leave out unreadable images.")


@dataclass(frozen=True)
class SplitOutput:
    """Output."""

    output: str = setting(
        "",
        "New manifest; with --folds a new folder for fold_1.csv, fold_2.csv, ...",
        required=True,
    )
    tree: str = setting("", "Also a new folder SPLIT/CLASS/FILE.")
    tree_mode: Literal["hardlink", "symlink", "copy"] = setting(
        "hardlink", "How the files get there."
    )


@dataclass(frozen=True)
class SplitSettings:
    """Split."""

    ratios: str = setting("", "NAME:SHARE,... with sum 1; with --folds, of the rest of a fold.")
    seed: int = setting(0, "Another seed, another split.")
    within: str = setting("", "Divide only this split that the images have.")
    resplit: bool = setting(False, "Replace the splits that the images have.")


@dataclass(frozen=True)
class FoldSettings:
    """Folds."""

    folds: int | None = setting(None, "Number of folds, from 2.")
    fold_split: str = setting(
        "",
        "The split that goes round: its parts share no image (default: test, or validation if test "
        "is sealed).",
    )
    fold_share: float | None = setting(
        None,
        "Its share of all images in each fold (default: all that is not sealed goes round).",
    )
    sealed: str = setting("", "NAME:SHARE,... kept the same in all folds.")


@dataclass(frozen=True)
class GroupingSettings:
    """Kept together."""

    group_by: str = setting(
        "",
        "Column of the manifest that names the group (core, hole, field of view), or a regular "
        "expression on /CLASS/FILE whose (first group) is the name, such as '^.*/(.*)_obj'.",
    )
    near_duplicates: Literal["mirrored", "together", "ignore"] = setting(
        "mirrored",
        "Images that look alike are kept together: also mirrored ones and ones turned by 90 "
        "degrees; only upright ones (a third of the time); or none is looked for.",
    )
    near_distance: int | None = setting(
        None, "Bits of 64 in which the hashes of such images differ."
    )
    hashes: bool = setting(True, "Hash all files: identical ones stay together, and are listed.")


@dataclass(frozen=True)
class SubsetSettings:
    """Classes and subsets."""

    merge: tuple[str, ...] = setting(
        (),
        "NEW:CLASS,CLASS,... makes one class of several, last: the splits are those without it",
        repeated=True,
    )
    subset: tuple[str, ...] = setting(
        (),
        "SPLIT:SHARE leaves out all but this share of a split, say 0.2; with the same seed a "
        "smaller subset is part of a larger one",
        repeated=True,
    )


@dataclass(frozen=True)
class SplitConfig(Config):
    """All settings of `simclr-split`."""

    images: ImageSettings = field(default_factory=ImageSettings)
    output: SplitOutput = field(default_factory=SplitOutput)
    split: SplitSettings = field(default_factory=SplitSettings)
    folds: FoldSettings = field(default_factory=FoldSettings)
    grouping: GroupingSettings = field(default_factory=GroupingSettings)
    subsets: SubsetSettings = field(default_factory=SubsetSettings)

    def validate(self) -> None:
        """Checks every setting, and what only fits together."""
        super().validate()
        f = self.folds
        if f.folds is None and (f.sealed or f.fold_split or f.fold_share is not None):
            raise UserError("--sealed, --fold_split and --fold_share need --folds")


@dataclass(frozen=True)
class CheckSettings:
    """Check."""

    near_distance: int = setting(
        8,
        "Most bits of 64 in which the perceptual hashes of near duplicates differ; -1 = do not "
        "look for them.",
        low=-1,
        high=64,
    )
    fail_on: Literal["serious", "warning", "never"] = setting(
        "serious", "From which severity on the exit code is 3."
    )
    seed: int = setting(0, "Of the test for features that tell the class.", low=0)


@dataclass(frozen=True)
class CheckOutput:
    """Output."""

    output: str = setting("", "New folder for report.html and check.json.")
    thumbnails: int = setting(12, "Pictures of each class on the page.", low=0)


@dataclass(frozen=True)
class CheckConfig(Config):
    """All settings of `simclr-check`."""

    images: ListedImages = field(default_factory=ListedImages)
    check: CheckSettings = field(default_factory=CheckSettings)
    output: CheckOutput = field(default_factory=CheckOutput)


@dataclass(frozen=True)
class ManifestOutput:
    """Output."""

    output: str = setting("", "New manifest.", required=True)


@dataclass(frozen=True)
class FractionSettings:
    """Labels."""

    fraction: float | None = setting(
        None, "Share of the labelled training images that keep the label, such as 0.01."
    )
    labels_per_class: int | None = setting(None, "Or how many of each class.")
    seed: int = setting(0, "Another seed, another draw.")
    split: str = setting("train", "The split to draw from; all images if they have no splits.")
    unchosen: Literal["unlabelled", "left_out"] = setting(
        "unlabelled", "What becomes of the others: they lose the label, or are left out."
    )
    group_by: str = setting(
        "",
        "Draw whole groups: a column of the manifest (say group), or a regular expression on "
        "/CLASS/FILE whose (first group) is the name.",
    )


@dataclass(frozen=True)
class FractionConfig(Config):
    """All settings of `simclr-label-fraction`."""

    images: ImageSettings = field(default_factory=ImageSettings)
    output: ManifestOutput = field(default_factory=ManifestOutput)
    labels: FractionSettings = field(default_factory=FractionSettings)

    def validate(self) -> None:
        """Checks every setting, and what only fits together."""
        super().validate()
        if (self.labels.fraction is None) == (self.labels.labels_per_class is None):
            raise UserError("give either --fraction or --labels_per_class")


@dataclass(frozen=True)
class TargetSettings:
    """Targets."""

    target_dir: str = setting(
        "",
        "Folder of targets, such as depth maps: every image is paired with the file of the same "
        "name but for the ending.",
    )
    pair_by: str = setting(
        "",
        "Regular expression of what an image's name has beside its target's: with '_itr[0-9]+$' "
        "the images a_itr0.png and a_itr1.png belong to the target a.png.",
    )
    target_scale: str = setting(
        "",
        "Physical units of one stored unit of a target, such as 0.01 nm for a 16-bit PNG; empty = "
        "1.",
    )


@dataclass(frozen=True)
class ManifestConfig(Config):
    """All settings of `simclr-manifest`."""

    images: ImageSettings = field(default_factory=ImageSettings)
    output: ManifestOutput = field(default_factory=ManifestOutput)
    reading: Declaration = field(default_factory=Declaration)
    targets: TargetSettings = field(default_factory=TargetSettings)


@dataclass(frozen=True)
class MeasuredImages(ImageSettings):
    """Images."""

    tfrecord_dir: str = setting("", "Or a folder of TFRecord shards.")
    image_channels: str = setting("auto", "Channels: auto, 1, 3 or n.")


@dataclass(frozen=True)
class StatsSettings:
    """Statistics."""

    split: str = setting("train", "Split to measure, if the set has splits.")
    output: str = setting("", "Also write the numbers to this new JSON file.")


@dataclass(frozen=True)
class StatsConfig(Config):
    """All settings of `simclr-stats`."""

    images: MeasuredImages = field(default_factory=MeasuredImages)
    reading: Declaration = field(default_factory=Declaration)
    measure: StatsSettings = field(default_factory=StatsSettings)


@dataclass(frozen=True)
class ShardSettings:
    """Shards."""

    output: str = setting("", "New folder to write to.")
    num_shards: int = setting(0, "Shards of every split; 0: as many as --shard_mb asks for.")
    shard_mb: float = setting(128.0, "Size of a shard in megabytes.")
    workers: int = setting(
        0, "Shards written at the same time; 0: one a processor, 8 at most.", low=0
    )


@dataclass(frozen=True)
class VerifySettings:
    """Check."""

    verify: str = setting(
        "",
        "Folder of shards to compare with their SHA-256; nothing is written. Exit code 1 if any is "
        "damaged.",
    )


@dataclass(frozen=True)
class ShardConfig(Config):
    """All settings of `simclr-tfrecord`."""

    images: ImageSettings = field(default_factory=ImageSettings)
    reading: Declaration = field(default_factory=Declaration)
    shards: ShardSettings = field(default_factory=ShardSettings)
    check: VerifySettings = field(default_factory=VerifySettings)
