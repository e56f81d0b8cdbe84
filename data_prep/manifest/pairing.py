"""Pairs of images and targets, such as SEM pictures and depth maps, found by the names of files."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import list_folder
from data_prep.names import composed

_SHOWN = 3


def paired(manifest: Manifest, target_dir: str, pair_by: str, target_scale: str) -> Manifest:
    """Pairs images with targets as `TargetSettings` say.

    Raises:
        UserError: As `pair_by_name` and `with_target_scale`, or `--pair_by` without a folder.
    """
    if target_dir:
        manifest = pair_by_name(manifest, target_dir, pair_by)
    elif pair_by:
        raise UserError("give --target_dir=FOLDER too", setting="pair_by", value=pair_by)
    return with_target_scale(manifest, target_scale) if target_scale else manifest


def pair_by_name(
    manifest: Manifest, target_dir: str | os.PathLike[str], pair_by: str = ""
) -> Manifest:
    """Fills `target`, and `group` where there is none, by the names of files.

    The name is that of the file without its ending. Where several targets have it, the one in
    the same sub-folder counts.

    Args:
        manifest: The images.
        target_dir: Folder of the targets, with or without sub-folders.
        pair_by: Regular expression; what it matches in an image's name is left out.

    Returns:
        The manifest; all images of one target are of one group, which no split tears apart.

    Raises:
        UserError: No such folder, a wrong expression, an image without a target or with several.
    """
    targets = list_folder(target_dir)
    by_stem: dict[str, dict[str, str]] = defaultdict(dict)
    for record, file in zip(targets.records, targets.files(), strict=True):
        folder, stem = _parts(record.path)
        other = by_stem[stem].setdefault(folder, file)
        if other != file:
            raise UserError(f"targets {other} and {file} have the same name; remove one of them")
    chosen: list[str] = []
    unmatched: list[str] = []
    for record in manifest.records:
        folder, stem = _parts(record.path)
        found = by_stem.get(_without(stem, pair_by), {})
        file = next(iter(found.values())) if len(found) == 1 else _in_folder(found, folder)
        if not found:
            unmatched.append(record.path)
        elif not file:
            raise UserError(
                f"{record.path}: {len(found)} targets have its name: {_some(list(found.values()))};"
                " keep the sub-folders of both alike"
            )
        chosen.append(file)
    if unmatched:
        raise UserError(
            f"{len(unmatched)} of {len(manifest)} images have no target in {target_dir}:"
            f" {_some(unmatched)}; add the targets, or say by --pair_by what to leave out of an"
            " image's name"
        )
    root = os.path.abspath(target_dir)
    return manifest.subset(
        replace(record, target=file, group=record.group or os.path.relpath(file, root))
        for record, file in zip(manifest.records, chosen, strict=True)
    )


def with_target_scale(manifest: Manifest, scale: str) -> Manifest:
    """Fills `target_scale`, where it is not said yet.

    Raises:
        UserError: Not a number above 0, or the manifest says another.
    """
    number = scale_of(scale)
    said = {scale_of(r.target_scale) for r in manifest.records if r.target_scale}
    if said - {number}:
        raise UserError(
            f"the manifest says {min(said - {number}):g}; let them agree",
            setting="target_scale",
            value=scale,
        )
    return manifest.subset(replace(record, target_scale=scale) for record in manifest.records)


def scale_of(text: str) -> float:
    """The number of a `target_scale`; 1 if it is empty.

    Raises:
        UserError: Not a number above 0.
    """
    try:
        scale = float(text or 1)
    except ValueError:
        scale = 0.0
    if not 0 < scale < float("inf"):
        raise UserError(f"target_scale {text!r}: must be a number above 0, such as 0.01")
    return scale


def _parts(path: str) -> tuple[str, str]:
    """Folder, and name without its ending, both in Unicode form NFC."""
    folder, name = os.path.split(composed(path))
    return folder, os.path.splitext(name)[0]


def _without(stem: str, pair_by: str) -> str:
    try:
        return re.sub(composed(pair_by), "", stem) if pair_by else stem
    except re.error as error:
        raise UserError(
            f"not a regular expression: {error}", setting="pair_by", value=pair_by
        ) from None


def _in_folder(found: dict[str, str], folder: str) -> str:
    """The target whose folder ends the image's, or the other way round; empty if not just one."""
    image = folder.split("/")
    fitting = [file for own, file in found.items() if _ends(image, own.split("/"))]
    return fitting[0] if len(fitting) == 1 else ""


def _ends(one: Sequence[str], other: Sequence[str]) -> bool:
    shared = min(len(one), len(other))
    return list(one[-shared:]) == list(other[-shared:])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
