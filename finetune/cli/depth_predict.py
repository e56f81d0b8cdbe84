"""`simclr-depth-predict`: depth maps of SEM images, and how good they are."""

import logging
import sys
from collections.abc import Collection
from pathlib import Path

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow, progress_lines
from finetune.depth.settings import DepthPredictConfig

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


def run(config: DepthPredictConfig, given: Collection[str]) -> None:
    """Predicts what the settings name."""
    from data_prep.storage import check_new_folder, may_be_complete

    images, site_means = config.images, config.measure.site_means
    output = Path(config.prediction.output)
    images.check_given()
    if not may_be_complete(output):
        check_new_folder(output)
    import_tensorflow()
    from data_prep.manifest.manifest import Manifest
    from data_prep.manifest.open_images import open_declared
    from data_prep.manifest.read_options import Declaration
    from finetune.depth.page import summary
    from finetune.depth.predict import DepthRequest, open_pipeline, predict_folder
    from finetune.depth.results import read_site_means

    request = DepthRequest.of(config, (NAME, *config.flags(given)))
    means = read_site_means(site_means) if site_means else None
    pipeline = open_pipeline(request)

    def find(declared: Declaration) -> Manifest:
        found = open_declared(
            images.image_dir, images.manifest, declared, skip_unreadable=images.skip_unreadable
        )
        return found.split(images.split) if images.split else found

    stated = config.reading.among(given)
    manifest = pipeline.reading.open(stated, find, sample=lambda images: images)
    results = predict_folder(request, pipeline, manifest, means, progress_lines)
    if results is None:
        return
    if not results.empty:
        if results.splits:
            print(results.table())
        for sentence in summary(results, len(manifest)):
            log.info("%s", sentence)
    log.info("wrote %d depth maps to %s", len(manifest), output)


COMMAND = Command(
    NAME,
    DESCRIPTION,
    DepthPredictConfig,
    run,
    basics=(
        "model",
        "image_dir",
        "manifest",
        "output",
        "router",
        "translator",
        "surface_depth",
        "site_means",
        "archive",
        "blend_cases",
    ),
    positional=("model", "image_dir", "output"),
)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
