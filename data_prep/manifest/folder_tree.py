"""A manifest as a folder tree, split/class/file, of links or copies."""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, canonical_split
from data_prep.manifest.scan import is_rubbish
from data_prep.names import composed
from data_prep.storage import new_folder

_LOGGER = logging.getLogger(__name__)

TreeMode = Literal["hardlink", "symlink", "copy"]


def write_trees(
    manifests: Mapping[str, Manifest],
    folder: str | os.PathLike[str],
    mode: TreeMode,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes trees below one folder; all of it, or nothing if it fails or is interrupted.

    Files keep their names. Where two files of one folder would have the same name (whatever the
    case of its letters), the first by path keeps it and the next get `~2`, `~3` before the ending.
    Images without a split, or without a label, lie a level higher.

    Args:
        manifests: Sub-folder -> its images; "" = the folder itself.
        folder: A folder that does not exist yet or is empty.
        mode: Hard links (no room needed, same disk), symbolic links (they point to where the
            images lie now), or copies.
        progress: Called with (files done, files in all) now and then.

    Raises:
        UserError: The folder holds something, a name cannot be a folder's, the manifest has
            parts of files, or the disk cannot link.
    """
    jobs = [
        (file, os.path.join(name, place))
        for name, manifest in manifests.items()
        for file, place in zip(manifest.files(), tree_paths(manifest), strict=True)
    ]
    if any(record.reading for manifest in manifests.values() for record in manifest.records):
        _LOGGER.warning("%s: how files are to be read stands in the manifest only", folder)
    with new_folder(folder) as work:
        folders = sorted({os.path.dirname(place) for _, place in jobs})
        for inner in folders:
            (work / inner).mkdir(parents=True, exist_ok=True)
        _refuse_merged(work, folders)
        for done, (file, place) in enumerate(jobs, 1):
            _place(file, work / place, mode)
            progress(done, len(jobs))


def tree_paths(manifest: Manifest) -> list[str]:
    """Returns the path of every image below the tree's folder, with `/`; no two are the same.

    Raises:
        UserError: The manifest has parts of files, or a name that cannot be a folder's.
    """
    if any(record.tile for record in manifest.records) or len(set(manifest.files())) < len(
        manifest
    ):
        raise UserError(
            "a folder tree cannot hold parts of files (pages, images of a stack, tiles); use the"
            " manifest instead"
        )
    check_folder_names(manifest)
    for record in manifest.records:
        if os.path.basename(record.path) in ("", ".", ".."):
            raise UserError(f"{record.path}: is no file that a tree could hold")
    folders = ["/".join(filter(None, (r.split, r.label))) for r in manifest.records]
    wanted = [
        (folder, os.path.basename(record.path))
        for folder, record in zip(folders, manifest.records, strict=True)
    ]
    given = {(folder, _folded(name)) for folder, name in wanted}
    taken: set[tuple[str, str]] = set()
    places = [""] * len(wanted)
    for index in sorted(range(len(wanted)), key=lambda index: manifest.records[index].path):
        folder, name = wanted[index]
        stem, ending = os.path.splitext(name)
        number = 1
        while (folder, _folded(name)) in taken or (number > 1 and (folder, _folded(name)) in given):
            number += 1
            name = f"{stem}~{number}{ending}"
        taken.add((folder, _folded(name)))
        places[index] = "/".join(filter(None, (folder, name)))
    return places


def check_folder_names(manifest: Manifest) -> None:
    """Raises UserError if a split or a class cannot be the name of a folder of a tree."""
    splits = set(manifest.splits)
    for split, label in {(record.split, record.label) for record in manifest.records}:
        _check_folder_name(split, "split")
        _check_folder_name(label, "class")
        if label and canonical_split(label) in splits:
            raise UserError(
                f"the class {label!r} has the name of a split, so a tree of it could not be"
                " read; rename it with --merge"
            )


def _folded(name: str) -> str:
    """Returns a text that is equal for names that Windows or a Mac takes for one."""
    return composed(name).casefold()


def _refuse_merged(work: Path, folders: Sequence[str]) -> None:
    """Refuses classes that differ by case alone on a disk that does not keep them apart."""
    first: dict[str, str] = {}
    for folder in folders:
        other = first.setdefault(_folded(folder), folder)
        if other != folder and os.path.samefile(work / other, work / folder):
            raise UserError(
                f"this disk takes the folders {other!r} and {folder!r} for one; rename a class with"
                " --merge, or use the manifest instead"
            )


def _check_folder_name(name: str, what: str) -> None:
    if name.startswith(".") or is_rubbish(name) or "/" in name or os.sep in name or "\0" in name:
        raise UserError(f"the {what} {name!r} cannot be the name of a folder of a tree")


def _place(file: str, destination: Path, mode: TreeMode) -> None:
    if mode == "symlink":
        destination.symlink_to(file)
        return
    try:
        if mode == "copy":
            shutil.copy2(file, destination)
        else:
            os.link(os.path.realpath(file), destination)
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}:
            raise UserError(
                f"{file} cannot be hard-linked to {destination.parent}: {error.strerror}; use"
                " --tree_mode=symlink or copy"
            ) from None
        raise
