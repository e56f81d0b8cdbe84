"""`simclr-split`: seeded, stratified splits and folds that tear nothing apart."""

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.image_flags import define_images, open_images
from data_prep.cli.request import asked
from data_prep.cli.runtime import progress_lines
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, canonical_split

if TYPE_CHECKING:
    from data_prep.manifest.groups import Kept
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


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    define_images(flag_values)
    with topic(flag_values, "Output"):
        flags.DEFINE_string(
            "output",
            None,
            "New manifest; with --folds a new folder for fold_1.csv, fold_2.csv, ...",
            required=True,
            **own,
        )
        flags.DEFINE_string("tree", None, "Also a new folder SPLIT/CLASS/FILE.", **own)
        flags.DEFINE_enum(
            "tree_mode",
            "hardlink",
            ["hardlink", "symlink", "copy"],
            "How the files get there.",
            **own,
        )
    with topic(flag_values, "Split"):
        flags.DEFINE_string(
            "ratios", None, "NAME:SHARE,... with sum 1; with --folds, of the rest of a fold.", **own
        )
        flags.DEFINE_integer("seed", 0, "Another seed, another split.", **own)
        flags.DEFINE_string("within", None, "Divide only this split that the images have.", **own)
        flags.DEFINE_bool("resplit", False, "Replace the splits that the images have.", **own)
    with topic(flag_values, "Folds"):
        flags.DEFINE_integer("folds", None, "Number of folds, from 2.", **own)
        flags.DEFINE_string(
            "fold_split",
            None,
            "The split that goes round: its parts share no image (default: test, or validation"
            " if test is sealed).",
            **own,
        )
        flags.DEFINE_float(
            "fold_share",
            None,
            "Its share of all images in each fold (default: all that is not sealed goes round).",
            **own,
        )
        flags.DEFINE_string("sealed", None, "NAME:SHARE,... kept the same in all folds.", **own)
    define_together(flag_values)
    with topic(flag_values, "Classes and subsets"):
        flags.DEFINE_multi_string(
            "merge",
            [],
            "NEW:CLASS,CLASS,... makes one class of several, last: the splits are those without it",
            **own,
        )
        flags.DEFINE_multi_string(
            "subset",
            [],
            "SPLIT:SHARE leaves out all but this share of a split, say 0.2; with the same seed a"
            " smaller subset is part of a larger one",
            **own,
        )


def define_together(flag_values: flags.FlagValues) -> None:
    """Defines the flags that say what must not be torn apart."""
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, "Kept together"):
        flags.DEFINE_string(
            "group_by",
            "",
            "Column of the manifest that names the group (core, hole, field of view), or a regular"
            " expression on /CLASS/FILE whose (first group) is the name, such as '^.*/(.*)_obj'.",
            **own,
        )
        flags.DEFINE_enum(
            "near_duplicates",
            "mirrored",
            ["mirrored", "together", "ignore"],
            "Images that look alike are kept together: also mirrored ones and ones turned by 90"
            " degrees; only upright ones (a third of the time); or none is looked for.",
            **own,
        )
        flags.DEFINE_integer(
            "near_distance", None, "Bits of 64 in which the hashes of such images differ.", **own
        )
        flags.DEFINE_bool(
            "hashes", True, "Hash all files: identical ones stay together, and are listed.", **own
        )


def run(flag_values: flags.FlagValues) -> int:
    """Makes the splits that the flags ask for."""
    from data_prep.manifest.folder_tree import write_trees
    from data_prep.manifest.groups import torn_pairs, torn_units
    from data_prep.manifest.scan import log_gaps
    from data_prep.manifest.split_request import divide
    from data_prep.manifest.splits import fold_names, merge_classes, save_folds

    request = _request(flag_values)
    outputs = asked(flag_values, NAME, ["output", "tree"])
    if (code := outputs.code_if_complete()) is not None:
        return code
    images = open_images(flag_values)
    merge_classes(images, request.merges)  # says what is wrong before the long work
    manifest, kept = find_together(flag_values, images)
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
        if flag_values.tree:
            progress = progress_lines("files")
            write_trees(parts, drafts.paths[1], flag_values.tree_mode, progress)
        if request.folds:
            save_folds(parts, drafts.paths[0])
        else:
            results[0].save(drafts.paths[0])
    logger.info("wrote %s", flag_values.output)
    return 0


def find_together(flag_values: flags.FlagValues, images: Manifest) -> tuple[Manifest, "Kept"]:
    """The images with what the flags want kept together as their groups."""
    from data_prep.manifest.groups import keep_together

    return keep_together(
        images,
        group_by=flag_values.group_by,
        source=flag_values.manifest or "",
        hashes=flag_values.hashes,
        near_duplicates=flag_values.near_duplicates,
        near_distance=flag_values.near_distance,
        progress=progress_lines,
    )


def _request(flag_values: flags.FlagValues) -> "SplitRequest":
    from data_prep.manifest.split_request import SplitRequest
    from data_prep.manifest.splits import FoldPlan, parse_merges, parse_ratios

    f = flag_values
    ratios = parse_ratios(f.ratios) if f.ratios else {}
    subsets: dict[str, float] = {}
    for text in f.subset:
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
    elif f.sealed or f.fold_split or f.fold_share is not None:
        raise UserError("--sealed, --fold_split and --fold_share need --folds")
    return SplitRequest(
        ratios, f.seed, folds, f.within or "", f.resplit, subsets, parse_merges(f.merge)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-split`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
