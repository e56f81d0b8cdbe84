"""`simclr-depth-predict`: depth maps of SEM images, and how good they are."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.image_flags import define_images, define_reading, given_images, given_reading
from data_prep.cli.runtime import import_tensorflow, progress_lines

NAME = "simclr-depth-predict"
DESCRIPTION = """Predicts the depth map of every image with a model of simclr-depth-train. Of
generators per case, a classifier of simclr-finetune (--router) chooses one for each image; images
of a real microscope may first be translated to simulated ones (--translator).

OUTPUT gets depth/NAME.png (16 bit; depth_scale.json says what a level is), float/NAME.npy,
predictions.csv, and submission.zip with the depth images alone. Where the manifest names true depth
maps (target), or --site_means the mean depths of sites, there are also metrics.json, errors.csv and
report.html. Images are read as in training. Memory does not grow with their number. A stopped
command goes on where it was."""

log = logging.getLogger("finetune.depth_predict")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, "Prediction"):
        flags.DEFINE_string("model", None, "Folder of simclr-depth-train.", required=True, **own)
        flags.DEFINE_string("output", None, "New folder to write to.", required=True, **own)
        flags.DEFINE_string(
            "router", "", "Folder of a classifier whose classes are the cases.", **own
        )
        flags.DEFINE_string(
            "translator",
            "",
            "Folder of simclr-depth-train --direction=real: makes simulated images of real ones.",
            **own,
        )
        flags.DEFINE_bool(
            "route_before_translation",
            False,
            "The router sees the images as they are, for it was trained on such.",
            **own,
        )
        flags.DEFINE_bool(
            "blend_cases",
            False,
            "Average the maps of all cases' generators, weighted by the router's probabilities.",
            **own,
        )
        flags.DEFINE_integer("batch_size", 256, "Images of a pass.", 1, **own)
        flags.DEFINE_enum(
            "archive",
            "png16",
            ["png16", "png8", "npy"],
            "Images in submission.zip: 16 bit; 8 bit, a grey level a unit of depth; float32 NPY.",
            **own,
        )
    with topic(flag_values, "Known surface"):
        flags.DEFINE_list(
            "surface_depth",
            [],
            "Level the surface: DEPTH, or CASE:DEPTH,CASE:DEPTH. Depths within --surface_tolerance"
            " of it become it; nothing else changes.",
            **own,
        )
        flags.DEFINE_float("surface_tolerance", 5.0, "In units of depth.", 0, **own)
    with topic(flag_values, "Measuring"):
        flags.DEFINE_string(
            "site_means",
            "",
            "CSV of site and mean_depth; sites are the groups of the manifest.",
            **own,
        )
        flags.DEFINE_integer("bootstrap", 2000, "Samples behind the intervals.", 0, **own)
        flags.DEFINE_integer("seed", 0, "Of these samples.", 0, **own)
    define_images(flag_values)
    with topic(flag_values, "Images"):
        flags.DEFINE_string("split", "", "Only this split of the manifest; empty = all.", **own)
    define_reading(flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Predicts what the flags name."""
    from data_prep.storage import check_new_folder, may_be_complete
    from finetune.depth.pipeline import parse_background

    f, output = flag_values, Path(flag_values.output)
    folder, listed = given_images(f)
    if not may_be_complete(output):
        check_new_folder(output)
    background = parse_background(f.surface_depth, f.surface_tolerance)
    import_tensorflow()
    from data_prep.manifest.manifest import Manifest
    from data_prep.manifest.open_images import open_declared
    from data_prep.manifest.read_options import Declaration
    from finetune.depth.page import summary
    from finetune.depth.predict import DepthRequest, open_pipeline, predict_folder
    from finetune.depth.results import read_site_means

    request = DepthRequest(
        f.model,
        output,
        f.router,
        f.translator,
        f.route_before_translation,
        f.blend_cases,
        background,
        f.archive,
        f.batch_size,
        f.bootstrap,
        f.seed,
        (NAME, *_given(f)),
    )
    means = read_site_means(f.site_means) if f.site_means else None
    pipeline = open_pipeline(request)

    def find(declared: Declaration) -> Manifest:
        found = open_declared(folder, listed, declared, skip_unreadable=f.skip_unreadable)
        return found.split(f.split) if f.split else found

    manifest = pipeline.reading.open(given_reading(f), find, sample=lambda images: images)
    results = predict_folder(request, pipeline, manifest, means, progress_lines)
    if results is None:
        return
    if not results.empty:
        if results.splits:
            print(results.table())
        for sentence in summary(results, len(manifest)):
            log.info("%s", sentence)
    log.info("wrote %d depth maps to %s", len(manifest), output)


def _given(flag_values: flags.FlagValues) -> list[str]:
    """The flags of the command line, as they can be given again."""
    return [flag_values[n].serialize() for n in flag_values if flag_values[n].present]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-depth-predict`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
