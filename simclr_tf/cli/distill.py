"""`simclr-distill`: a small network learns from a fine-tuned one, on images without labels."""

import sys
from collections.abc import Sequence

from absl import flags

from data_prep.cli.app import run_app
from simclr_tf.cli import config_flags
from simclr_tf.cli.run import run

NAME = "simclr-distill"
DESCRIPTION = """Trains a student network on what a fine-tuned teacher says of images that need no
labels: the third step of SimCLRv2.

It is simclr-run with --train_mode=distill: the same flags, the same files, the same way to stop and
go on. Without network flags the student is as large as the teacher (self-distillation)."""


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    config_flags.define(flag_values, {"train_mode": "distill"})


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-distill`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
