"""`simclr-run`: SimCLRv2's run.py on one's own images: pretrain, fine-tune, evaluate."""

import sys
from collections.abc import Sequence

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.runtime import import_tensorflow
from data_prep.errors import UserError
from simclr_tf.cli import config_flags
from simclr_tf.config.run_config import PRESETS, RunConfig

NAME = "simclr-run"
DESCRIPTION = """Pretrains a SimCLRv2 network on images without labels, or fine-tunes one with
labels, evaluates it and exports it.

The flags are those of SimCLR's tf2/run.py, with --image_dir for a folder of one's own images. The
same command line goes on with a run that was stopped."""


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    with topic(flag_values, "Preset"):
        flags.DEFINE_enum(
            "preset",
            None,
            sorted(PRESETS),
            "Settings of a piece of published work; flags that are given win. "
            "rheed_...: diffraction images, four methods. "
            "..._views: a method with its paper's views.",
            flag_values=flag_values,
        )
    with topic(flag_values, "Training and evaluation"):
        flags.DEFINE_integer(
            "contrastive_batch",
            None,
            "Another name for --train_batch_size, beside --microbatch: the images that the losses "
            "see together.",
            lower_bound=1,
            flag_values=flag_values,
        )
    config_flags.define(flag_values)


def _take_preset(flag_values: flags.FlagValues) -> None:
    name = flag_values["preset"].value if "preset" in flag_values else None
    for setting, value in PRESETS[name].items() if name else ():
        flag_values.set_default(setting, value)


def _take_contrastive_batch(flag_values: flags.FlagValues) -> None:
    known = "contrastive_batch" in flag_values
    batch = flag_values["contrastive_batch"].value if known else None
    if batch is None:
        return
    whole = flag_values["train_batch_size"]
    if not whole.using_default_value and whole.value != batch:
        raise UserError(
            f"--contrastive_batch={batch} and --train_batch_size={whole.value} are the same "
            "setting; give one of them"
        )
    flag_values.train_batch_size = batch


def read_config(flag_values: flags.FlagValues) -> RunConfig:
    """The configuration that the flags describe, the preset's values where none are given."""
    _take_preset(flag_values)
    _take_contrastive_batch(flag_values)
    return config_flags.read(flag_values)


def run(flag_values: flags.FlagValues) -> int:
    """Does what the flags ask for; 128 + the signal's number if it was asked to stop."""
    config = read_config(flag_values)
    if not config.run.model_dir:
        raise UserError("--model_dir is missing: say where the run is to be kept")
    import_tensorflow()
    from simclr_tf.training.from_checkpoint import adopt_checkpoint, open_origins
    from simclr_tf.training.run import execute

    origins = open_origins(config)
    given = config_flags.given(flag_values)
    return execute(adopt_checkpoint(config, given, origins), origins)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-run`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
