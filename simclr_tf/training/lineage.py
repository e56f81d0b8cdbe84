"""What the run that weights come from has seen."""

import logging
from pathlib import Path

from data_prep.checksums import read_object
from data_prep.errors import UserError
from data_prep.manifest import Manifest
from simclr_tf.checkpoints.load import Checkpoint
from simclr_tf.run_dir import RunDir

log = logging.getLogger(__name__)


def warn_of_leaks(checkpoint: Checkpoint, manifest: Manifest, train_split: str) -> None:
    """Says so if images to be scored were trained on by the run that the weights come from."""
    for text in seen_before(checkpoint, manifest, train_split):
        log.warning("%s", text)


def seen_before(checkpoint: Checkpoint, manifest: Manifest, train_split: str) -> tuple[str, ...]:
    """Which images to be scored were trained on by the run that the weights come from.

    Args:
        checkpoint: Where the weights come from; its folder may tell of its run.
        manifest: The images of the new run.
        train_split: The split that it trains on.

    Returns:
        A sentence for each split that holds such images.
    """
    trained_on = _trained_on(Path(checkpoint.location.folder))
    seen = _pictures(trained_on) if trained_on is not None else set()
    found = []
    for name in manifest.splits:
        files = _pictures(manifest.split(name))
        if name != train_split and seen & files:
            found.append(
                f"{len(seen & files)} of {len(files)} {name} images were training images of "
                f"{checkpoint.stored.path}: scores on them are too good"
            )
    return tuple(found)


def _trained_on(folder: Path) -> Manifest | None:
    run = RunDir(folder.parent if folder.name == "best" else folder)
    if not (run.manifest_file.exists() and run.config_file.exists()):
        return None
    try:
        # Runs of all commands name the split alike; their other settings do not matter here.
        split = read_object(run.config_file)["data"]["train_split"]
        if fault := run.checksums.fault(run.manifest_file.name):
            raise UserError(f"{run.manifest_file} is damaged: it {fault}")
        return Manifest.load(run.manifest_file).split(split)
    except (UserError, KeyError, TypeError) as error:
        log.warning("%s: which images that run was trained on is not known", error)
        return None


def _pictures(manifest: Manifest) -> set[tuple[str, str]]:
    return {(str(Path(file).resolve()), page) for file, page in manifest.pictures()}
