"""`simclr-finetune`: a classifier on a pretrained encoder, measured on held-out images."""

import sys
from collections.abc import Collection

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow
from finetune.config import PRESETS, FinetuneConfig

NAME = "simclr-finetune"
DESCRIPTION = """Trains a classifier on a pretrained encoder: a linear head, a head with hidden
layers, some blocks or the whole network. The epoch that validates best is kept, test images are
scored once at the end, and report.html tells everything.

--encoder takes whatever simclr-run leaves and every public SimCLR checkpoint. The same command
line goes on with a run that was stopped."""


def run(config: FinetuneConfig, given: Collection[str]) -> int:
    """Trains as the settings say; 128 + the signal's number if it was asked to stop."""
    import_tensorflow()
    from finetune.finetune import finetune

    return finetune(config, given, (NAME, *sys.argv[1:]))


COMMAND = Command(NAME, DESCRIPTION, FinetuneConfig, run, presets=PRESETS)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
