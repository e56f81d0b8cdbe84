"""What the run that weights come from has seen."""

import logging
import os
from pathlib import Path

from data_prep.checksums import read_object
from data_prep.errors import UserError
from data_prep.identity import ALL_AS_CHANNELS, Picture
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
    seen = _Pictures(trained_on) if trained_on is not None else None
    found = []
    for name in manifest.splits:
        pictures = set(manifest.split(name).pictures())
        known = sum(picture in seen for picture in pictures) if seen else 0
        if name != train_split and known:
            found.append(
                f"{known} of {len(pictures)} {name} images were training images of "
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


class _Pictures:
    """The pictures of a manifest, wherever links lead to them.

    An array that is not named, and all pages as channels, may be any of a file's.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._parts: dict[str, set[tuple[str, int]]] = {}
        for picture in manifest.pictures():
            self._parts.setdefault(os.path.realpath(picture.file), set()).add(picture[1:])

    def __contains__(self, picture: Picture) -> bool:
        known = self._parts.get(os.path.realpath(picture.file), set())
        return any(
            (array == picture.array or not (array and picture.array))
            and (page == picture.page or ALL_AS_CHANNELS in (page, picture.page))
            for array, page in known
        )
