"""`simclr-zoo`: lists the public SimCLR checkpoints, or fetches one."""

import os
import sys
from collections.abc import Sequence

from absl import flags

from data_prep.cli.app import run_app, topic
from simclr_tf.checkpoints import zoo

NAME = "simclr-zoo"
DESCRIPTION = """Lists the public SimCLR checkpoints, their size and ImageNet accuracy, or gets one.

Every name in the list may be given to simclr-run as --checkpoint, which fetches it if need be;
--fetch gets it beforehand, where there is a network. Checkpoints are kept in the folder that
SIMCLR_TF_CACHE names, else in ~/.cache/simclr_tf."""


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    with topic(flag_values, "Checkpoints"):
        flags.DEFINE_string(
            "fetch",
            "",
            "Name of the checkpoint to download, such as simclrv2/pretrained/r50_1x_sk0; its "
            "folder is printed. Without it, the list.",
            flag_values=flag_values,
        )


def run(flag_values: flags.FlagValues) -> None:
    """Prints the list, or the folder of the checkpoint that was asked for."""
    text = str(zoo.fetch(flag_values.fetch)) if flag_values.fetch else zoo.table()
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `| head` has seen enough; the flush at exit must not fail as well
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-zoo`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
