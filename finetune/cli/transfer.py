"""`simclr-transfer`: a new head on a network of keras.applications, measured on held-out images."""

import sys
from collections.abc import Collection

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow
from finetune.transfer_config import PRESETS, TransferConfig

NAME = "simclr-transfer"
DESCRIPTION = """Trains a new head on VGG16, VGG19, ResNet50 or any other network of
keras.applications, its weights frozen; then, if asked, the end of the network too at a lower rate.
The epoch that validates best is kept, test images are scored once at the end, and report.html
tells everything, with feature maps and where the evidence lies (Grad-CAM).

Each network's own preprocess_input is a part of the model, which takes images in [0, 1]. The same
command line goes on with a run that was stopped."""


def run(config: TransferConfig, _given: Collection[str]) -> int:
    """Trains as the settings say; 128 + the signal's number if it was asked to stop."""
    import_tensorflow()
    from finetune.transfer import train_transfer

    return train_transfer(config, (NAME, *sys.argv[1:]))


COMMAND = Command(
    NAME,
    DESCRIPTION,
    TransferConfig,
    run,
    presets=PRESETS,
    basics=(
        "image_dir",
        "output",
        "manifest",
        "backbone",
        "weights",
        "pooling",
        "cut_layer",
        "head",
        "image_size",
        "labels_per_class",
        "augment",
        "unfreeze_after",
        "train_epochs",
        "learning_rate",
        "preset",
    ),
    positional=("image_dir", "output"),
)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
