"""`simclr-predict`: the classes that a trained network sees in new images."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.image_flags import define_images, define_reading, given_images, given_reading
from data_prep.cli.request import asked
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.errors import UserError
from data_prep.phrases import counted
from finetune.report.side_files import unreadable_file

NAME = "simclr-predict"
DESCRIPTION = """Classifies the images of a folder with the model of a run (simclr-finetune,
simclr-transfer, simclr-run), or with any SimCLR checkpoint that has a supervised head. Images are
read and prepared as in training: with its intensity rule, its axes and its tiles, unless flags say
otherwise. Any number of images takes the same memory. Unreadable files are left out and listed in
OUTPUT.unreadable.csv, and the exit code is then 3; all others are predicted."""

EXIT_INCOMPLETE = 3

log = logging.getLogger("finetune.predict")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, "Prediction"):
        define_model(flag_values)
        flags.DEFINE_string("output", None, "CSV file to write.", required=True, **own)
        flags.DEFINE_integer("top_k", 5, "Best classes to give for each image.", 1, **own)
        flags.DEFINE_float(
            "threshold",
            None,
            "Of two classes: least score of the positive one (default: as the run decided, or else"
            " the higher score).",
            0,
            1,
            **own,
        )
        flags.DEFINE_float(
            "abstain",
            0.0,
            "Predict no class whose score is below this; 0 = always one.",
            0,
            1,
            **own,
        )
        flags.DEFINE_integer("batch_size", 64, "Images of a pass.", 1, **own)
        flags.DEFINE_enum(
            "precision",
            "run",
            ["run", "float32", "bfloat16"],
            "Of the arithmetic: as the run was scored, or another.",
            **own,
        )
        flags.DEFINE_bool(
            "skip_unreadable", False, "Exit with 0 although files were left out.", **own
        )
        flags.DEFINE_bool("overwrite", False, "Replace an output that is there.", **own)
    define_images(flag_values, may_skip=False)
    define_reading(flag_values)


def define_model(flag_values: flags.FlagValues) -> None:
    """Defines `--model`, and `--checkpoint` as another name of it."""
    own: dict[str, Any] = {"flag_values": flag_values}
    flags.DEFINE_string("model", None, "Folder of a run, or a checkpoint.", **own)
    flags.DEFINE_alias("checkpoint", "model", **own)


def given_model(flag_values: flags.FlagValues) -> str:
    """The path that `--model` names.

    Raises:
        UserError: It is missing.
    """
    if not flag_values.model:
        raise UserError("--model is missing: give the folder of a run, or a checkpoint")
    return str(flag_values.model)


def run(flag_values: flags.FlagValues) -> int:
    """Predicts what the flags name."""
    f, output = flag_values, Path(flag_values.output)
    model = given_model(f)
    outputs = asked(f, NAME, ["output"], [unreadable_file(output)])
    if (code := outputs.code_if_complete()) is not None:
        return code
    image_dir, manifest = given_images(f)
    if image_dir and not Path(image_dir).is_dir():
        raise UserError(f"--image_dir={image_dir}: no such folder")
    import_tensorflow()
    from finetune.predict import Listed, PredictSettings, list_images, predict_images
    from finetune.trained import open_trained

    trained = open_trained(model, f.precision)
    listed = trained.preprocessing.reading.open(
        given_reading(f),
        find=lambda declared: list_images(image_dir, manifest, declared),
        sample=Listed.sample,
    )
    settings = PredictSettings(f.top_k, f.threshold, f.abstain, f.batch_size)
    with outputs.drafts() as drafts:
        done = predict_images(trained, listed, drafts.paths[0], settings, progress_lines("files"))
        drafts.code = EXIT_INCOMPLETE if done.unreadable and not f.skip_unreadable else 0
    log.info("wrote %s: %s", output, counted(done.images, "image"))
    if done.abstained:
        log.info("%d of them without a class: no score reaches %g", done.abstained, f.abstain)
    if not done.unreadable:
        return 0
    left_out = counted(done.unreadable, "file")
    log.warning("%s left out, listed in %s", left_out, unreadable_file(output))
    return drafts.code


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-predict`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
