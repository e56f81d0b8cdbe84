"""`simclr-split`: seeded, stratified splits and folds that tear nothing apart."""

import logging
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

from data_prep.cli.command import Command
from data_prep.cli.runtime import progress_lines
from data_prep.manifest.manifest import canonical_split
from data_prep.sections import SplitConfig

if TYPE_CHECKING:
    from data_prep.manifest.split_request import SplitRequest

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
    from data_prep.manifest.groups import keep_together, torn_pairs, torn_units
    from data_prep.manifest.open_images import open_images
    from data_prep.manifest.scan import log_gaps
    from data_prep.manifest.split_request import divide
    from data_prep.manifest.splits import fold_names, merge_classes, save_folds
    from data_prep.outputs import requested_outputs

    request = _request(config)
    outputs = requested_outputs(config, given, NAME, ["output", "tree"])
    if (code := outputs.code_if_complete()) is not None:
        return code
    images = open_images(config.images)
    merge_classes(images, request.merges)  # says what is wrong before the long work
    grouping = config.grouping
    manifest, kept = keep_together(
        images,
        group_by=grouping.group_by,
        source=config.images.manifest,
        hashes=grouping.hashes,
        near_duplicates=grouping.near_duplicates,
        near_distance=grouping.near_distance,
        progress=progress_lines,
    )
    results = divide(manifest, request)
    names = fold_names(len(results)) if request.folds else [""]
    parts = dict(zip(names, results, strict=True))
    for name, result in parts.items():
        print("\n".join(filter(None, (name, result.table()))), end="\n\n")
    print(f"{kept}\nseed {request.seed}")
    if kept.chained:
        logger.warning(
            "one unit holds %d of %d %s; look whether --group_by is too coarse, or take a lower"
            " --near_distance",
            kept.largest,
            kept.pictures,
            f"{kept.counted_as}s",
        )
    torn = max(map(torn_units, results))
    pairs = max(torn_pairs(result, kept, manifest) for result in results)
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
            write_trees(parts, drafts.paths[1], config.output.tree_mode, progress)
        if request.folds:
            save_folds(parts, drafts.paths[0])
        else:
            results[0].save(drafts.paths[0])
    logger.info("wrote %s", config.output.output)
    return 0


def _request(config: SplitConfig) -> "SplitRequest":
    from data_prep.manifest.split_request import SplitRequest
    from data_prep.manifest.splits import FoldPlan, parse_merges, parse_ratios

    split, f = config.split, config.folds
    ratios = parse_ratios(split.ratios) if split.ratios else {}
    subsets: dict[str, float] = {}
    for text in config.subsets.subset:
        subsets |= parse_ratios(text)
    folds = None
    if f.folds is not None:
        sealed = parse_ratios(f.sealed) if f.sealed else {}
        usual = "validation" if "test" in sealed else "test"
        folds = FoldPlan(
            f.folds,
            canonical_split(f.fold_split or usual),
            share=f.fold_share,
            sealed=sealed,
            rest=ratios or {"train": 1.0},
        )
    merges = parse_merges(config.subsets.merge)
    return SplitRequest(ratios, split.seed, folds, split.within, split.resplit, subsets, merges)


COMMAND = Command(NAME, DESCRIPTION, SplitConfig, run)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
