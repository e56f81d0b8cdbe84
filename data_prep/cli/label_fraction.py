"""`simclr-label-fraction`: leave labels to a few of the training images only."""

import logging
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.image_flags import define_images, open_images
from data_prep.cli.request import asked
from data_prep.errors import UserError
from data_prep.manifest.manifest import canonical_split

NAME = "simclr-label-fraction"
DESCRIPTION = """Writes a manifest in which only some training images have a label, for learning
from few labels. Draws are stratified, exact in number and nested: with the same seed the labels of
--fraction=0.01 are among those of --fraction=0.1. Other splits stay as they are."""

logger = logging.getLogger("data_prep.label_fraction")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    define_images(flag_values)
    with topic(flag_values, "Output"):
        flags.DEFINE_string("output", None, "New manifest.", required=True, **own)
    with topic(flag_values, "Labels"):
        flags.DEFINE_float(
            "fraction",
            None,
            "Share of the labelled training images that keep the label, such as 0.01.",
            **own,
        )
        flags.DEFINE_integer("labels_per_class", None, "Or how many of each class.", **own)
        flags.DEFINE_integer("seed", 0, "Another seed, another draw.", **own)
        flags.DEFINE_string(
            "split", "train", "The split to draw from; all images if they have no splits.", **own
        )
        flags.DEFINE_enum(
            "unchosen",
            "unlabelled",
            ["unlabelled", "left_out"],
            "What becomes of the others: they lose the label, or are left out.",
            **own,
        )
        flags.DEFINE_string(
            "group_by",
            "",
            "Draw whole groups: a column of the manifest (say group), or a regular expression on"
            " /CLASS/FILE whose (first group) is the name.",
            **own,
        )


def run(flag_values: flags.FlagValues) -> int:
    """Writes the manifest that the flags ask for."""
    from data_prep.manifest.groups import with_group_column, with_groups_of
    from data_prep.manifest.label_subsets import label_fraction

    if (flag_values.fraction is None) == (flag_values.labels_per_class is None):
        raise UserError("give either --fraction or --labels_per_class")
    outputs = asked(flag_values, NAME, ["output"])
    if (code := outputs.code_if_complete()) is not None:
        return code
    images = grouped = open_images(flag_values)
    if flag_values.group_by:
        grouped = with_group_column(images, flag_values.group_by, flag_values.manifest or "")
    drawn = label_fraction(
        grouped,
        flag_values.seed,
        fraction=flag_values.fraction,
        per_class=flag_values.labels_per_class,
        split=canonical_split(flag_values.split),
        unchosen=flag_values.unchosen,
        whole_groups=bool(flag_values.group_by),
    )
    drawn = with_groups_of(drawn, images)
    print(f"{drawn.table()}\n\nseed {flag_values.seed}")
    with outputs.drafts() as drafts:
        drawn.save(drafts.paths[0])
    logger.info("wrote %s", flag_values.output)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-label-fraction`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
