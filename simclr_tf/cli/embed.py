"""`simclr-embed`: features of an image set on disk, and everything to be seen in them."""

import sys
from collections.abc import Sequence

from absl import flags

from data_prep.cli.app import run_app
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.errors import UserError
from simclr_tf.cli import config_flags
from simclr_tf.embedding.settings import EmbedConfig

NAME = "simclr-embed"
DESCRIPTION = """Writes the features that an encoder makes of a folder of images, with file names,
labels and splits (NPY, NPZ, CSV, Parquet), clusters them, finds neighbours, outliers and near
duplicates, measures them where there are labels, suggests what to label next, and makes a page to
explore them.

Any number of images takes the same memory. A command that was stopped goes on where it was; with
--num_workers several processes share the work. --embedding looks at a finished embedding again,
and joins an expert's labels (--join); --compare puts several side by side."""


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    config_flags.define(flag_values, config_type=EmbedConfig)


def run(flag_values: flags.FlagValues) -> None:
    """Does what the flags ask for."""
    f = flag_values
    config = config_flags.read_as(EmbedConfig, f)
    stated = config_flags.given(f, EmbedConfig)
    images = progress_lines("images")
    if f.embedding:
        _refuse(stated, ("encoder", "output", "manifest", "compare"), "--embedding")
        import_tensorflow()
        from simclr_tf.embedding.analyze import reanalyse, stored_settings

        config = config_flags.read_as(EmbedConfig, f, stored_settings(f.embedding))
        print(reanalyse(config, images))
        return
    if not f.output:
        raise UserError("--output is missing: say where the embedding is to be kept")
    if f.compare:
        _refuse(stated, ("encoder", "join", "num_workers"), "--compare")
    elif not f.encoder:
        raise UserError("--encoder is missing: give the folder of a run, or a checkpoint")
    elif not f.image_dir and not f.manifest:
        raise UserError("give either --image_dir=FOLDER or --manifest=FILE")
    import_tensorflow()
    if f.compare:
        from simclr_tf.embedding.compare import compare_embeddings as work
    else:
        from simclr_tf.embedding.compute import embed as work
    print(work(config, stated, images))


def _refuse(stated: set[str], names: tuple[str, ...], beside: str) -> None:
    for name in names:
        if name in stated:
            raise UserError(f"--{name}: not with {beside}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-embed`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
