"""`simclr-predict`: the classes that a trained network sees in the images of a folder."""

import logging
import sys
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.quiet import import_tensorflow
from data_prep.errors import UserError

NAME = "simclr-predict"
DESCRIPTION = """Classifies the images of a folder with any SimCLR checkpoint that has a supervised
head: a fine-tuned run, a public ImageNet checkpoint, a converted file. Images are prepared as the
network's own record says."""

log = logging.getLogger("simclr_tf.predict")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, "Prediction"):
        flags.DEFINE_string("checkpoint", None, "The network.", required=True, **own)
        flags.DEFINE_string("image_dir", None, "Folder of images.", required=True, **own)
        flags.DEFINE_string("output", None, "CSV file to write.", required=True, **own)
        flags.DEFINE_integer("top_k", 5, "Best classes to give for each image.", 1, **own)
        flags.DEFINE_integer("batch_size", 64, "Images of a pass.", 1, **own)
        flags.DEFINE_bool("skip_unreadable", False, "Leave damaged images out.", **own)
        flags.DEFINE_bool("overwrite", False, "Replace an output that is there.", **own)


def run(flag_values: flags.FlagValues) -> None:
    """Predicts what the flags name."""
    f, output = flag_values, Path(flag_values.output)
    if output.exists() and not f.overwrite:
        raise UserError(f"--output={output}: is there already; give another, or --overwrite")
    if not Path(f.image_dir).is_dir():
        raise UserError(f"--image_dir={f.image_dir}: no such folder")
    import_tensorflow()
    from simclr_tf.training.predict import predict_folder

    images = predict_folder(
        f.checkpoint,
        f.image_dir,
        output,
        top_k=f.top_k,
        batch_size=f.batch_size,
        skip_unreadable=f.skip_unreadable,
    )
    log.info("wrote %s: %d images", output, images)


def main() -> int:
    """Entry point of `simclr-predict`."""
    return run_app(run, define, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
