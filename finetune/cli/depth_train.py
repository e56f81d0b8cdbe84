"""`simclr-depth-train`: networks that make depth maps of SEM images."""

import sys
from collections.abc import Sequence

from absl import flags

from data_prep.cli.app import run_app
from data_prep.cli.runtime import import_tensorflow
from finetune.depth.settings import DepthConfig
from simclr_tf.cli import config_flags

NAME = "simclr-depth-train"
DESCRIPTION = """Trains a network that makes depth maps of images: an autoencoder or a U-Net on
pairs, or a CycleGAN, which also translates back and needs no pairs. The epoch whose depth is best
on validation (RMSE in physical units over all pixels) is kept.

Pairs come from a manifest (column target; target_scale says how many units of depth one stored unit
is) or by name: --image_dir=IMAGES --target_dir=MAPS. --model=cyclegan --direction=real translates
between simulated images and those of a real microscope (--real_manifest). --per_case trains a
network for each case, --folds=5 five times. The same command line goes on with a run that was
stopped."""


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    config_flags.define(flag_values, config_type=DepthConfig)


def run(flag_values: flags.FlagValues) -> int:
    """Trains as the flags say; 128 + the signal's number if it was asked to stop."""
    config = config_flags.read_as(DepthConfig, flag_values)
    import_tensorflow()
    from finetune.depth.runs import train_all

    return train_all(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-depth-train`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
