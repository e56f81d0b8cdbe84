"""Whether anything is in two splits at once: a file, the bytes of a file, a group."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.files import file_sha256
from data_prep.manifest import Manifest


@dataclass(frozen=True)
class LeakCheck:
    """One thing that no two splits may share.

    Attributes:
        what: `picture`, `file content`, `group` or, of paired data, `target`.
        checked: How many different ones were compared; 0 = none are known.
        shared: How many of them are in several splits.
        example: One that is, with its splits; "" if there is none.
    """

    what: str
    checked: int
    shared: int
    example: str = ""


def check_leaks(manifest: Manifest) -> tuple[LeakCheck, ...]:
    """Looks for files, equal file contents, groups and targets that are in several splits.

    Hashes that the manifest lacks are taken of files that share their size with a file of another
    split: no others can be equal to one.
    """
    splits = [record.split for record in manifest.records]
    files = [os.path.realpath(file) for file in manifest.files()]
    pages = [page for _, page in manifest.pictures()]
    contents = _contents(manifest, files, splits)
    shown = [record.path for record in manifest.records]
    groups = [record.group for record in manifest.records]
    found = (
        _compare("picture", _paged(files, pages), splits, shown),
        _compare("file content", _paged(contents, pages), splits, shown),
        _compare("group", groups, splits, groups),
    )
    targets = [record.target for record in manifest.records]
    if not any(targets):
        return found
    return (*found, _compare("target", manifest.target_files(), splits, targets))


def _paged(names: Sequence[str], pages: Sequence[str]) -> list[str]:
    """Pictures instead of files: the images of a stack may well be in several splits."""
    return [f"{name}\x1f{page}" if name else "" for name, page in zip(names, pages, strict=True)]


def _compare(
    what: str, keys: Sequence[str], splits: Sequence[str], shown: Sequence[str]
) -> LeakCheck:
    homes: dict[str, dict[str, str]] = defaultdict(dict)
    for key, split, name in zip(keys, splits, shown, strict=True):
        if key:
            homes[key].setdefault(split, name)
    shared = [home for home in homes.values() if len(home) > 1]
    example = ""
    if shared:
        example = ", ".join(f"{name} ({split})" for split, name in list(shared[0].items())[:2])
    return LeakCheck(what, len(homes), len(shared), example)


def _contents(manifest: Manifest, files: Sequence[str], splits: Sequence[str]) -> list[str]:
    """A name of every file's content: the same for two files only if they are equal."""
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
