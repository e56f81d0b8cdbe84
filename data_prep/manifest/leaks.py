"""A check for leaks: a picture, the content of an image, a group or a target in two splits."""

import os
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from data_prep.manifest.identity import shares_file
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.near_duplicates import part_hashes
from data_prep.storage import file_sha256


@dataclass(frozen=True)
class LeakCheck:
    """One thing that no two splits may share.

    Attributes:
        what: `picture`, `group`, of paired data `target`, and `file content`, or `image content`
            where images are parts of files.
        checked: How many different ones were compared; 0 = none are known.
        shared: How many of them are in several splits.
        example: One that is, with its splits; "" if there is none.
    """

    what: str
    checked: int
    shared: int
    example: str = ""


def check_leaks(manifest: Manifest, *, contents: bool = True) -> tuple[LeakCheck, ...]:
    """Looks for pictures, equal contents, groups and targets that are in several splits.

    Hashes that the manifest lacks are taken only of files that have the size of a file in another
    split; no others can be equal. Images that are parts of files (pages, tiles) are compared by
    their stored values.

    Args:
        manifest: The images.
        contents: Whether contents are compared, which reads files.
    """
    splits = [record.split for record in manifest.records]
    real = {file: os.path.realpath(file) for file in set(manifest.files())}
    pictures = [p._replace(file=real[p.file]) for p in manifest.pictures()]
    shown = [record.name for record in manifest.records]
    groups = [record.group for record in manifest.records]
    found = [_compare("picture", pictures, splits, shown)]
    if contents:
        parts = any(shares_file(r.reading, r.tile) for r in manifest.records)
        files = [picture.file for picture in pictures]
        keys = _contents(manifest, files, splits)
        found.append(_compare("image content" if parts else "file content", keys, splits, shown))
    found.append(_compare("group", groups, splits, groups))
    targets = manifest.target_files()
    if any(targets):
        found.append(_compare("target", targets, splits, [r.target for r in manifest.records]))
    return tuple(found)


def _compare(
    what: str, keys: Sequence[Hashable], splits: Sequence[str], shown: Sequence[str]
) -> LeakCheck:
    homes: dict[Hashable, dict[str, str]] = defaultdict(dict)
    for key, split, name in zip(keys, splits, shown, strict=True):
        if key:
            homes[key].setdefault(split, name)
    shared = [home for home in homes.values() if len(home) > 1]
    example = ""
    if shared:
        example = ", ".join(f"{name} ({split})" for split, name in list(shared[0].items())[:2])
    return LeakCheck(what, len(homes), len(shared), example)


def _contents(manifest: Manifest, files: Sequence[str], splits: Sequence[str]) -> list[str]:
    """Names every image's content, two alike only if the contents are equal; "" = not known."""
    parts = [i for i, r in enumerate(manifest.records) if shares_file(r.reading, r.tile)]
    if not parts:
        return _file_contents(manifest, files, splits)
    contents = [""] * len(manifest)
    rest = sorted(set(range(len(manifest))).difference(parts))
    whole = manifest.subset(manifest.records[i] for i in rest)
    known = _file_contents(whole, [files[i] for i in rest], [splits[i] for i in rest])
    for place, content in zip(rest, known, strict=True):
        contents[place] = content
    if len({splits[i] for i in parts}) > 1:
        part = manifest.subset(manifest.records[i] for i in parts)
        hashes = part_hashes(part, skip_unreadable=True)
        for place, digest in zip(parts, hashes, strict=True):
            contents[place] = digest
    return contents


def _file_contents(manifest: Manifest, files: Sequence[str], splits: Sequence[str]) -> list[str]:
    """Names the content of images that are whole files."""
    known = [record.sha256 for record in manifest.records]
    if all(known):
        return known
    sizes = [os.path.getsize(file) if os.path.isfile(file) else -1 for file in files]
    by_size: dict[int, set[str]] = defaultdict(set)
    for size, split in zip(sizes, splits, strict=True):
        by_size[size].add(split)
    contents = []
    for file, size in zip(files, sizes, strict=True):
        if size < 0:
            contents.append("")  # gone since: nothing can be said of it
        elif len(by_size[size]) == 1:
            contents.append(f"alone:{file}")
        else:
            contents.append(file_sha256(file))
    return contents
