"""What the run that weights come from has seen."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.checksums import read_object
from data_prep.errors import UserError
from data_prep.manifest.identity import ALL_AS_CHANNELS, Picture, shares_file
from data_prep.manifest.manifest import Manifest
from data_prep.phrases import counted
from data_prep.storage import file_sha256
from simclr_tf.checkpoints.find import locate
from simclr_tf.checkpoints.load import Checkpoint
from simclr_tf.training.run_dir import RunDir
from simclr_tf.training.run_warnings import ALARM, RunWarning, warn

log = logging.getLogger(__name__)


_STARTS = ("checkpoint", "encoder", "teacher")  # settings that name where weights come from
_LEVELS = 4  # run/saved_model/STEP/variables/variables


def warn_of_leaks(checkpoint: Checkpoint, manifest: Manifest, train_split: str) -> None:
    """Says so if images to be scored were trained on by the run that the weights come from."""
    for text in seen_before(checkpoint, manifest, train_split):
        warn(log, RunWarning(0, ALARM, text))


def seen_before(checkpoint: Checkpoint, manifest: Manifest, train_split: str) -> tuple[str, ...]:
    """Which images to be scored were trained on by the run that the weights come from.

    Args:
        checkpoint: Where the weights come from; its folder may tell of its run.
        manifest: The images of the new run.
        train_split: The split that it trains on.

    Returns:
        A sentence for each split that holds such images.
    """
    return seen_by(checkpoint.stored.path, manifest, train_split)


def seen_by(weights: str, manifest: Manifest, train_split: str = "train") -> tuple[str, ...]:
    """Which images to be scored were trained on by the run that a file of weights comes from.

    The runs that this run itself took weights from count too, and so do copies of their images
    under other names.

    Args:
        weights: File or prefix of the weights; its folder may tell of its run.
        manifest: The images that are to be used, in splits.
        train_split: The split whose images are learned from.

    Returns:
        A sentence for each split that holds such images.
    """
    told: dict[str, str] = {}
    for path in _ancestors(weights):
        if len(told) == len(set(manifest.splits) - {train_split}):
            break
        trained_on = _trained_on(_folder(path))
        if trained_on is None:
            continue
        for name in manifest.splits:
            if name == train_split or name in told:
                continue
            images = manifest.split(name)
            pictures = images.pictures()
            seen = {p for p, was in zip(pictures, _seen(trained_on, images), strict=True) if was}
            if seen:
                total = counted(len(set(pictures)), f"{name} image".strip())
                were = "was a training image" if len(seen) == 1 else "were training images"
                told[name] = f"{len(seen)} of {total} {were} of {path}: scores on them are too good"
    return tuple(told[name] for name in manifest.splits if name in told)


def _ancestors(weights: str) -> Iterator[str]:
    """The weights, and those that their run began with or learned from, the nearest first."""
    todo, known = [weights], {os.path.realpath(weights)}
    while todo:
        path = todo.pop(0)
        yield path
        config = _settings(RunDir(_folder(path)))
        for name in _STARTS:
            before = next((part[name] for part in config.values() if part.get(name)), "")
            try:
                found = locate(str(before)).path if before else ""
            except UserError:
                found = str(before)  # gone since; its folder may still tell
            if found and os.path.realpath(found) not in known:
                known.add(os.path.realpath(found))
                todo.append(found)


def _folder(weights: str) -> Path:
    """The folder of the run that weights belong to: the nearest above that holds one."""
    near = list(Path(weights).parents)[:_LEVELS]
    return next((folder for folder in near if RunDir(folder).config_file.exists()), near[0])


def _settings(run: RunDir) -> dict[str, dict[str, Any]]:
    """The settings of a run by topic; nothing where there are none to be read."""
    try:
        found = read_object(run.config_file)
    except (UserError, OSError):
        return {}
    return {topic: part for topic, part in found.items() if isinstance(part, dict)}


def _trained_on(folder: Path) -> Manifest | None:
    run = RunDir(folder)
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


def _seen(trained_on: Manifest, images: Manifest) -> list[bool]:
    """Whether each image is one of those that were trained on, or a copy of one."""
    known = _Pictures(trained_on)
    seen = [picture in known for picture in images.pictures()]
    if not all(seen):
        copies = _copies(trained_on, images)
        seen = [a or b for a, b in zip(seen, copies, strict=True)]
    return seen


def _copies(trained_on: Manifest, images: Manifest) -> list[bool]:
    """Whether the content of each whole file is that of one that was trained on."""
    known: dict[int, list[str]] = defaultdict(list)
    noted: set[str] = set()
    for record, file in zip(trained_on.records, trained_on.files(), strict=True):
        if shares_file(record.reading, record.tile):
            continue
        if record.sha256:
            noted.add(record.sha256)
        elif os.path.isfile(file):
            known[os.path.getsize(file)].append(file)
    digests = {size: set(map(file_sha256, files)) for size, files in _needed(known, images)}
    found = []
    for record, file in zip(images.records, images.files(), strict=True):
        whole = not shares_file(record.reading, record.tile) and os.path.isfile(file)
        same_size = digests.get(os.path.getsize(file), set()) if whole else set()
        if not whole or not (noted or same_size):
            found.append(False)
            continue
        digest = record.sha256 or file_sha256(file)
        found.append(digest in noted or digest in same_size)
    return found


def _needed(
    known: Mapping[int, Sequence[str]], images: Manifest
) -> Iterator[tuple[int, Sequence[str]]]:
    """The files by size, of sizes that some image has: no others can be equal to one."""
    sizes = {os.path.getsize(file) for file in images.files() if os.path.isfile(file)}
    return ((size, files) for size, files in known.items() if size in sizes)


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
