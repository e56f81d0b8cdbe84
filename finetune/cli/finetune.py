"""`simclr-finetune`: a classifier on a pretrained encoder, measured on held-out images."""

import logging
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow
from finetune.config import PRESETS, FinetuneConfig

NAME = "simclr-finetune"
DESCRIPTION = """Trains a classifier on a pretrained encoder: a linear head, a head with hidden
layers, some blocks or the whole network. The epoch that validates best is kept, test images are
scored once at the end, and report.html tells everything.

--encoder takes whatever simclr-run leaves and every public SimCLR checkpoint. The same command
line goes on with a run that was stopped."""

log = logging.getLogger("finetune.finetune")


def run(config: FinetuneConfig, given: Collection[str]) -> int:
    """Trains as the settings say; 128 + the signal's number if it was asked to stop."""
    config = with_images_of_encoder(config)
    import_tensorflow()
    from finetune.finetune import finetune

    return finetune(config, given, (NAME, *sys.argv[1:]))


def with_images_of_encoder(config: FinetuneConfig) -> FinetuneConfig:
    """Takes the images, labels and splits that the encoder's run had, if no others are given."""
    data, encoder = config.data, Path(config.start.encoder)
    listed = (encoder if encoder.is_dir() else encoder.parent) / "manifest.csv"
    if data.image_dir or data.manifest or not config.start.encoder or not listed.is_file():
        return config
    log.info("images, labels and splits are those of %s", listed)
    return replace(config, data=replace(data, manifest=str(listed)))


COMMAND = Command(
    NAME,
    DESCRIPTION,
    FinetuneConfig,
    run,
    presets=PRESETS,
    basics=(
        "encoder",
        "output",
        "image_dir",
        "manifest",
        "labels_per_class",
        "label_fraction",
        "train_blocks",
        "head_only",
        "head",
        "augment",
        "train_epochs",
        "train_batch_size",
        "learning_rate",
        "monitor",
        "preset",
    ),
    positional=("encoder", "output"),
)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
