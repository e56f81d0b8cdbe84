"""Augmented copies of the training images on disk: made after the split, of the training part only.

A copy made before a split, or of an image outside the training part, would put almost the same
picture on both sides and spoil every number measured. So images without splits are refused, and
validation and test are passed on as they are.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np

from data_prep.augment.copy_operations import RANDOM
from data_prep.augment.copying import CopyPlan, Source, part_name, write_all
from data_prep.errors import UserError
from data_prep.manifest.folder_tree import check_folder_names, tree_paths, write_trees
from data_prep.manifest.groups import inner_paths
from data_prep.manifest.identity import image_name
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.scan import image_facts
from data_prep.partial import is_complete, may_be_complete, partial_folder
from data_prep.storage import check_new_folder

_LOGGER = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.csv"
TRAIN = "train"

_COPY = re.compile(r"_aug\d\d+_[a-z0-9]+$")

Originals = Literal["hardlink", "symlink", "copy", "list"]


def write_copies(
    manifest: Manifest,
    output: str | os.PathLike[str],
    plan: CopyPlan,
    originals: Originals = "hardlink",
    *,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Writes a set of all images and the augmented copies of those of the training part.

    The output holds SPLIT/CLASS/FILE and `manifest.csv`. A copy is named after its image
    (`f03_aug01_hflip.png`) and has its label, case and group; images without a group get the
    name of their picture as group, so that copies can never be torn from them. Interrupted, even
    killed, the same call goes on where it was, to the same bytes.

    Args:
        manifest: The images, with splits.
        output: A folder that does not exist yet or is empty.
        plan: The copies.
        originals: How the images themselves get there: linked, copied, or only listed where they
            are. Images that share a file (tiles, pages) are always listed.
        workers: Images worked on at the same time; 0 = one a processor.
        progress: Called with (copies done, copies in all).

    Returns:
        The new manifest, rooted at `output`: the images in their order, then the copies.

    Raises:
        UserError: No split, no training images, paired images, an operation that does not go with
            an image, unreadable images, or an output that holds something.
    """
    target = Path(output).expanduser().absolute()
    if not may_be_complete(target):
        check_new_folder(target)
    _check(manifest, plan)
    files = manifest.files()
    if originals != "list" and len(set(files)) < len(files):
        _LOGGER.info("several images share a file, so the images stay where they are")
        originals = "list"
    # Also where no tree is made of them: copies get there, by the same names of folders.
    check_folder_names(manifest)
    places = files if originals == "list" else tree_paths(manifest)
    kept = [
        replace(record, path=place, group=record.group or own.lstrip("/") * (record.split == TRAIN))
        for record, place, own in zip(manifest.records, places, _pictures(manifest), strict=True)
    ]
    sources = _sources(manifest, kept, plan)
    workers = workers or os.cpu_count() or 1
    fingerprint = _fingerprint(manifest, plan, originals)
    if is_complete(target, fingerprint):
        return Manifest.load(target / MANIFEST_NAME)
    with partial_folder(target, fingerprint) as folder:
        if originals != "list" and not any(folder.iterdir()):
            folder.rmdir()
            write_trees({"": manifest}, folder, originals)
        copies = write_all(sources, folder, plan, workers, progress)
        result = Manifest((*kept, *copies), str(folder))
        result.save(folder / MANIFEST_NAME)
    return Manifest(result.records, str(target))


def _check(manifest: Manifest, plan: CopyPlan) -> None:
    if not manifest.splits:
        raise UserError(
            "the images have no splits, and copies made before a split end up on both sides of it;"
            " make one first with simclr-split"
        )
    if TRAIN not in manifest.splits:
        raise UserError(
            f"the images have no split named train (but {', '.join(manifest.splits)}), and only"
            " training images are augmented; simclr-split makes one"
        )
    train = manifest.split(TRAIN)
    paired = next((record.path for record in train.records if record.target), None)
    if paired:
        raise UserError(
            f"{paired} has a target image, which would have to be turned with it; paired images"
            " are not augmented on disk"
        )
    again = sum(bool(_COPY.search(_stem(record.path))) for record in train.records)
    if again:
        _LOGGER.warning("%d training images are augmented copies already, by their names", again)
    wanted = [name for name in plan.operations if name in RANDOM and RANDOM[name].rgb]
    if wanted:
        channels = image_facts(train).survey.channels
        other = np.flatnonzero(channels != 3)
        if len(other):
            raise UserError(
                f"{wanted[0]} needs RGB images, and {train.files()[other[0]]} has"
                f" {channels[other[0]]} channels; leave {wanted[0]} out"
            )


def _pictures(manifest: Manifest) -> list[str]:
    """A name of every image's picture, the same wherever the set lies."""
    inner = zip(inner_paths(manifest), manifest.records, strict=True)
    return [image_name(path, record.reading) for path, record in inner]


def _sources(manifest: Manifest, kept: Sequence[Record], plan: CopyPlan) -> list[Source]:
    """The training images, with names for their copies that nothing else in the folder has."""
    endings = [
        f"_aug{number:02d}_{operation}"
        for number, (operation, _) in enumerate(plan.copies_of_one())
    ]
    taken = {_stem(record.path).casefold() for record in kept}
    files, identities = manifest.files(), inner_paths(manifest)
    sources: dict[int, Source] = {}
    order = sorted(range(len(kept)), key=lambda index: (identities[index], str(kept[index])))
    for index in order:
        record, original = kept[index], manifest.records[index]
        if record.split != TRAIN:
            continue
        part = part_name(record)
        name = os.path.basename(_stem(original.path)) + part
        stem = "/".join(filter(None, (record.split, record.label, name)))
        names, number = [stem + ending for ending in endings], 1
        while any(name.casefold() in taken for name in names):
            number += 1
            names = [f"{stem}~{number}{ending}" for ending in endings]
        taken.update(name.casefold() for name in names)
        sources[index] = Source(files[index], record, identities[index] + part, tuple(names))
    return [sources[index] for index in sorted(sources)]


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]


def _fingerprint(manifest: Manifest, plan: CopyPlan, originals: Originals) -> str:
    """Hash of all that decides the output."""
    stamps = [(status.st_size, status.st_mtime_ns) for status in map(os.stat, manifest.files())]
    content = [manifest.sha256(), manifest.files(), stamps, asdict(plan), originals]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
