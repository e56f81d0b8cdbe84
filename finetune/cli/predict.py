"""`simclr-predict`: the classes that a trained network sees in new images."""

import logging
import sys
from collections.abc import Collection
from pathlib import Path

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.errors import UserError
from data_prep.phrases import counted
from finetune.report.side_files import unreadable_file
from finetune.sections import PredictConfig

NAME = "simclr-predict"
DESCRIPTION = """Classifies the images of a folder with the model of a run (simclr-finetune,
simclr-transfer, simclr-run), or with any SimCLR checkpoint that has a supervised head. Images are
read and prepared as in training: with its intensity rule, its axes and its tiles, unless flags say
otherwise. Any number of images takes the same memory. Unreadable files are left out and listed in
OUTPUT.unreadable.csv, and the exit code is then 3; all others are predicted."""

EXIT_INCOMPLETE = 3

log = logging.getLogger("finetune.predict")


def run(config: PredictConfig, given: Collection[str]) -> int:
    """Predicts what the settings name."""
    from data_prep.outputs import requested_outputs

    p, images = config.prediction, config.images
    model, output = p.given_model(), Path(p.output)
    outputs = requested_outputs(config, given, NAME, besides=[unreadable_file(output)])
    if (code := outputs.code_if_complete()) is not None:
        return code
    images.check_given()
    if images.image_dir and not Path(images.image_dir).is_dir():
        raise UserError("no such folder", setting="image_dir", value=images.image_dir)
    import_tensorflow()
    from finetune.predict import ImageList, list_images, predict_images
    from finetune.trained import open_trained

    trained = open_trained(model, p.precision)
    listed = trained.preprocessing.reading.open(
        config.reading.among(given),
        find=lambda declared: list_images(images.image_dir, images.manifest, declared),
        sample=ImageList.sample,
    )
    with outputs.drafts() as drafts:
        done = predict_images(trained, listed, drafts.paths[0], p, progress_lines("files"))
        drafts.code = EXIT_INCOMPLETE if done.unreadable and not p.skip_unreadable else 0
    log.info("wrote %s: %s", output, counted(done.images, "image"))
    if done.abstained:
        log.info("%d of them without a class: no score reaches %g", done.abstained, p.abstain)
    if not done.unreadable:
        return 0
    left_out = counted(done.unreadable, "file")
    log.warning("%s left out, listed in %s", left_out, unreadable_file(output))
    return drafts.code


COMMAND = Command(
    NAME,
    DESCRIPTION,
    PredictConfig,
    run,
    basics=(
        "model",
        "image_dir",
        "manifest",
        "output",
        "top_k",
        "threshold",
        "abstain",
        "skip_unreadable",
        "overwrite",
    ),
    positional=("model", "image_dir", "output"),
)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
