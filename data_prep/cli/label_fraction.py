"""`simclr-label-fraction`: leave labels to a few of the training images only."""

import logging
import sys
from collections.abc import Collection

from data_prep.cli.command import Command
from data_prep.manifest.manifest import canonical_split
from data_prep.outputs import requested_outputs
from data_prep.sections import FractionConfig

NAME = "simclr-label-fraction"
DESCRIPTION = """Writes a manifest in which only some training images have a label, for learning
from few labels. Draws are stratified, exact in number and nested: with the same seed the labels of
--fraction=0.01 are among those of --fraction=0.1. Other splits stay as they are."""

logger = logging.getLogger("data_prep.label_fraction")


def run(config: FractionConfig, given: Collection[str]) -> int:
    """Writes the manifest that the settings ask for."""
    from data_prep.manifest.groups import with_group_column, with_groups_of
    from data_prep.manifest.label_subsets import label_fraction
    from data_prep.manifest.open_images import open_images

    outputs = requested_outputs(config, given, NAME)
    if (code := outputs.code_if_complete()) is not None:
        return code
    labels = config.labels
    images = grouped = open_images(config.images)
    if labels.group_by:
        grouped = with_group_column(images, labels.group_by, config.images.manifest)
    drawn = label_fraction(
        grouped,
        labels.seed,
        fraction=labels.fraction,
        per_class=labels.labels_per_class,
        split=canonical_split(labels.split),
        unchosen=labels.unchosen,
        whole_groups=bool(labels.group_by),
    )
    drawn = with_groups_of(drawn, images)
    print(f"{drawn.table()}\n\nseed {labels.seed}")
    with outputs.drafts() as drafts:
        drawn.save(drafts.paths[0])
    logger.info("wrote %s", config.output.output)
    return 0


COMMAND = Command(NAME, DESCRIPTION, FractionConfig, run, positional=("image_dir", "output"))
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
