"""`simclr-transfer`: a new head on a network of keras.applications, measured on held-out images."""

import sys
from collections.abc import Sequence

from absl import flags

from data_prep.cli.app import run_app
from data_prep.cli.runtime import import_tensorflow
from finetune.transfer_config import TransferConfig, preset
from simclr_tf.cli import config_flags

NAME = "simclr-transfer"
DESCRIPTION = """Trains a new head on VGG16, VGG19, ResNet50 or any other network of
keras.applications, its weights frozen; then, if asked, the end of the network too at a lower rate.
The epoch that validates best is kept, test images are scored once at the end, and report.html
tells everything, with feature maps and where the evidence lies (Grad-CAM).

Each network's own preprocess_input is a part of the model, which takes images in [0, 1]. The same
command line goes on with a run that was stopped."""


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    config_flags.define(flag_values, config_type=TransferConfig)


def run(flag_values: flags.FlagValues) -> int:
    """Trains as the flags say; 128 + the signal's number if it was asked to stop."""
    config = config_flags.read_as(TransferConfig, flag_values, preset(flag_values.preset))
    import_tensorflow()
    from finetune.transfer import train_transfer

    return train_transfer(config, (NAME, *sys.argv[1:]))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-transfer`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
