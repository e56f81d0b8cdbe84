"""`simclr-split`: seeded, stratified splits and folds that tear nothing apart."""

import logging
import sys
from collections.abc import Collection

from data_prep.cli.command import Command
from data_prep.cli.runtime import progress_lines
from data_prep.outputs import requested_outputs
from data_prep.sections import SplitConfig

NAME = "simclr-split"
DESCRIPTION = """Assigns images to splits and writes a manifest (CSV) that every other command
reads. The numbers are exact, every class has its share in every split, and the same seed gives the
same file. Groups, tiles of one picture, links, identical files and images that look alike stay on
one side.

--ratios=train:0.6,validation:0.3,test:0.1 makes one split. --folds=4 --sealed=test:0.1 makes four
manifests: 67.5 % train, 22.5 % validation, and the same 10 % test in all. --folds=3
--fold_split=train --fold_share=0.1 --ratios=validation:0.25,test:0.75 trains three times on
another 10 %. Without --ratios and --folds the images keep their splits, which --subset, --merge
and --tree then work on."""

logger = logging.getLogger("data_prep.split")


def run(config: SplitConfig, given: Collection[str]) -> int:
    """Makes the splits that the settings ask for."""
    from data_prep.manifest.folder_tree import write_trees
    from data_prep.manifest.groups import torn_pairs, torn_units
    from data_prep.manifest.open_images import open_images
    from data_prep.manifest.scan import log_gaps
    from data_prep.manifest.split_request import make_splits, split_request
    from data_prep.manifest.splits import save_folds

    split_request(config)  # says what is wrong before the long work
    outputs = requested_outputs(config, given, NAME, ["output", "tree"])
    if (code := outputs.code_if_complete()) is not None:
        return code
    images = open_images(config.images)
    division = make_splits(images, config, progress_lines)
    kept, results = division.kept, list(division.parts.values())
    for name, result in division.parts.items():
        print("\n".join(filter(None, (name, result.table()))), end="\n\n")
    print(f"{kept}\nseed {config.split.seed}")
    if kept.chained:
        logger.warning(
            "one unit holds %d of %d %s; look whether --group_by is too coarse, or take a lower"
            " --near_distance",
            kept.largest,
            kept.pictures,
            f"{kept.counted_as}s",
        )
    torn = max(map(torn_units, results))
    pairs = max(torn_pairs(result, kept, division.grouped) for result in results)
    if torn or pairs:
        logger.warning(
            "%d of these units and %d of these pairs lie across splits that the images came with",
            torn,
            pairs,
        )
    log_gaps(results[0])
    with outputs.drafts() as drafts:
        if config.output.tree:
            progress = progress_lines("files")
            write_trees(division.parts, drafts.paths[1], config.output.tree_mode, progress)
        if config.folds.folds is not None:
            save_folds(division.parts, drafts.paths[0])
        else:
            results[0].save(drafts.paths[0])
    logger.info("wrote %s", config.output.output)
    return 0


COMMAND = Command(NAME, DESCRIPTION, SplitConfig, run, positional=("image_dir", "output"))
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
