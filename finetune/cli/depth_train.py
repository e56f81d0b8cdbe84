"""`simclr-depth-train`: networks that make depth maps of SEM images."""

import sys
from collections.abc import Collection

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow
from finetune.depth.settings import DepthConfig

NAME = "simclr-depth-train"
DESCRIPTION = """Trains a network that makes depth maps of images: an autoencoder or a U-Net on
pairs, or a CycleGAN, which also translates back and needs no pairs. The epoch whose depth is best
on validation (RMSE in physical units over all pixels) is kept.

Pairs come from a manifest (column target; target_scale says how many units of depth one stored unit
is) or by name: --image_dir=IMAGES --target_dir=MAPS. --model=cyclegan --direction=real translates
between simulated images and those of a real microscope (--real_manifest). --per_case trains a
network for each case, --folds=5 five times. The same command line goes on with a run that was
stopped."""


def run(config: DepthConfig, _given: Collection[str]) -> int:
    """Trains as the settings say; 128 + the signal's number if it was asked to stop."""
    import_tensorflow()
    from finetune.depth.runs import train_all

    return train_all(config)


COMMAND = Command(
    NAME,
    DESCRIPTION,
    DepthConfig,
    run,
    basics=(
        "image_dir",
        "target_dir",
        "manifest",
        "output",
        "model",
        "direction",
        "per_case",
        "folds",
        "train_epochs",
        "train_batch_size",
        "learning_rate",
        "target_scale",
    ),
    positional=("image_dir", "output"),
)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
