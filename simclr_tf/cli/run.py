"""`simclr-run`: SimCLRv2's run.py on one's own images: pretrain, fine-tune, evaluate."""

import sys
from collections.abc import Collection

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow
from data_prep.errors import UserError
from simclr_tf.config.run_config import PRESETS, RunConfig

NAME = "simclr-run"
DESCRIPTION = """Pretrains a SimCLRv2 network on images without labels, or fine-tunes one with
labels, evaluates it and exports it.

The flags are those of SimCLR's tf2/run.py, with --image_dir for a folder of one's own images. The
same command line goes on with a run that was stopped."""


def run(config: RunConfig, given: Collection[str]) -> int:
    """Does what the settings ask for; 128 + the signal's number if it was asked to stop."""
    if not config.run.model_dir:
        raise UserError("is missing: say where the run is to be kept", setting="model_dir")
    import_tensorflow()
    from simclr_tf.training.from_checkpoint import adopt_checkpoint, open_origins
    from simclr_tf.training.run import execute

    origins = open_origins(config)
    return execute(adopt_checkpoint(config, given, origins), origins)


COMMAND = Command(
    NAME,
    DESCRIPTION,
    RunConfig,
    run,
    presets=PRESETS,
    preset_help="Settings of a piece of published work; flags that are given win. rheed_...: "
    "diffraction images, four methods. ..._views: a method with its paper's views.",
    basics=(
        "image_dir", "model_dir", "mode", "train_mode", "preset", "image_size", "resnet_depth",
        "width_multiplier", "train_batch_size", "train_epochs", "optimizer", "learning_rate",
        "temperature", "checkpoint", "labels_per_class", "validate_every",
    ),
    positional=("image_dir", "model_dir"),
)  # fmt: skip
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
