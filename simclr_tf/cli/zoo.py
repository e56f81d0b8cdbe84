"""`simclr-zoo`: lists the public SimCLR checkpoints, or fetches one."""

import os
import sys
from collections.abc import Collection
from dataclasses import dataclass, field

from data_prep.cli.command import Command
from data_prep.settings import Config, setting
from simclr_tf.checkpoints import zoo

NAME = "simclr-zoo"
DESCRIPTION = """Lists the public SimCLR checkpoints, their size and ImageNet accuracy, or gets one.

Every name in the list may be given to simclr-run as --checkpoint, which fetches it if need be;
--fetch gets it beforehand, where there is a network. Checkpoints are kept in the folder that
SIMCLR_TF_CACHE names, else in ~/.cache/simclr_tf."""


@dataclass(frozen=True)
class ZooSettings:
    """Checkpoints."""

    fetch: str = setting(
        "",
        "Name of the checkpoint to download, such as simclrv2/pretrained/r50_1x_sk0; its folder is "
        "printed. Without it, the list.",
    )


@dataclass(frozen=True)
class ZooConfig(Config):
    """All settings of `simclr-zoo`."""

    zoo: ZooSettings = field(default_factory=ZooSettings)


def run(config: ZooConfig, _given: Collection[str]) -> None:
    """Prints the list, or the folder of the checkpoint that was asked for."""
    wanted = config.zoo.fetch
    text = str(zoo.fetch(wanted)) if wanted else zoo.table()
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `| head` has seen enough; the flush at exit must not fail as well
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


COMMAND = Command(NAME, DESCRIPTION, ZooConfig, run, positional=("fetch",))
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
