"""`simclr-finetune`: a classifier on a pretrained encoder, measured on held-out images."""

import sys
from collections.abc import Sequence

from absl import flags

from data_prep.cli.app import run_app
from data_prep.cli.runtime import import_tensorflow
from finetune.config import FinetuneConfig
from simclr_tf.cli import config_flags

NAME = "simclr-finetune"
DESCRIPTION = """Trains a classifier on a pretrained encoder: a linear head, a head with hidden
layers, some blocks or the whole network. The epoch that validates best is kept, test images are
scored once at the end, and report.html tells everything.

--encoder takes whatever simclr-run leaves and every public SimCLR checkpoint. The same command
line goes on with a run that was stopped."""


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    config_flags.define(flag_values, config_type=FinetuneConfig)


def run(flag_values: flags.FlagValues) -> int:
    """Trains as the flags say; 128 + the signal's number if it was asked to stop."""
    from finetune.config import preset

    values = preset(flag_values.preset)
    config = config_flags.read_as(FinetuneConfig, flag_values, values)
    given = config_flags.given(flag_values, FinetuneConfig) | set(values)
    import_tensorflow()
    from finetune.finetune import finetune

    return finetune(config, given, (NAME, *sys.argv[1:]))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-finetune`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
