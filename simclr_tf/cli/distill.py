"""`simclr-distill`: a small network learns from a fine-tuned one, on images without labels."""

import sys

from data_prep.cli.command import Command
from simclr_tf.cli.run import run
from simclr_tf.config.run_config import RunConfig

NAME = "simclr-distill"
DESCRIPTION = """Trains a student network on what a fine-tuned teacher says of images that need no
labels: the third step of SimCLRv2.

It is simclr-run with --train_mode=distill: the same flags, the same files, the same way to stop and
go on. Without network flags the student is as large as the teacher (self-distillation)."""


COMMAND = Command(
    NAME,
    DESCRIPTION,
    RunConfig,
    run,
    defaults={"train_mode": "distill"},
    basics=(
        "image_dir",
        "model_dir",
        "teacher",
        "mode",
        "resnet_depth",
        "width_multiplier",
        "train_batch_size",
        "train_epochs",
        "optimizer",
        "learning_rate",
        "distill_temperature",
        "labelled_weight",
    ),
    positional=("image_dir", "model_dir"),
)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
