"""`simclr-embed`: features of an image set on disk, and everything to be seen in them."""

import sys
from collections.abc import Collection

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.errors import UserError
from simclr_tf.embedding.settings import EmbedConfig

NAME = "simclr-embed"
DESCRIPTION = """Writes the features that an encoder makes of a folder of images, with file names,
labels and splits (NPY, NPZ, CSV, Parquet), clusters them, finds neighbours, outliers and near
duplicates, measures them where there are labels, suggests what to label next, and makes a page to
explore them.

Any number of images takes the same memory. A command that was stopped goes on where it was; with
--num_workers several processes share the work. --embedding looks at a finished embedding again,
and joins an expert's labels (--join); --compare puts several side by side."""


def run(config: EmbedConfig, given: Collection[str]) -> None:
    """Does what the settings ask for."""
    progress = progress_lines("images")
    images, several = config.images, config.page.compare
    if finished := config.labelling.embedding:
        _refuse(given, ("encoder", "output", "manifest", "compare"), "--embedding")
        import_tensorflow()
        from simclr_tf.embedding.analyze import reanalyze, stored_settings

        print(reanalyze(config.completed(stored_settings(finished), given), progress))
        return
    if not config.storage.output:
        raise UserError("is missing: say where the embedding is to be kept", setting="output")
    if several:
        _refuse(given, ("encoder", "join", "num_workers"), "--compare")
    elif not config.features.encoder:
        raise UserError("is missing: give the folder of a run, or a checkpoint", setting="encoder")
    elif not images.image_dir and not images.manifest:
        raise UserError("give either --image_dir=FOLDER or --manifest=FILE")
    import_tensorflow()
    if several:
        from simclr_tf.embedding.compare import compare_embeddings as work
    else:
        from simclr_tf.embedding.compute import embed as work
    print(work(config, given, progress))


def _refuse(given: Collection[str], names: Collection[str], beside: str) -> None:
    for name in names:
        if name in given:
            raise UserError(f"not with {beside}", setting=name)


COMMAND = Command(
    NAME,
    DESCRIPTION,
    EmbedConfig,
    run,
    basics=(
        "encoder",
        "image_dir",
        "manifest",
        "output",
        "endpoint",
        "kmeans",
        "clusters",
        "neighbors",
        "suggest_labels",
        "embedding",
        "join",
        "compare",
        "explore",
    ),
    positional=("encoder", "image_dir", "output"),
)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
