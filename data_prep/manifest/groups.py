"""Groups that a split must not tear: tiles of a picture, links, identical and similar images."""

import os
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, TypeAlias

import numpy as np

from data_prep.csv_files import read_csv
from data_prep.errors import UserError
from data_prep.manifest.identity import (
    Picture,
    array_text,
    image_name,
    image_of,
    page_text,
    shares_file,
)
from data_prep.manifest.manifest import COLUMNS, Manifest, Record
from data_prep.manifest.root import common_folder
from data_prep.names import composed
from data_prep.phrases import counted


def unit_numbers(manifest: Manifest, pairs: np.ndarray | None = None) -> np.ndarray:
    """Numbers the sets of records that must stay together.

    Records stay together that are of one picture (its tiles), of one group or of one target, that
    are the same picture in files of one hash, or that are a pair. Two records that each stay
    together with a third stay together, too.

    Args:
        manifest: The records.
        pairs: int64 [m, 2], further pairs of record indices.

    Returns:
        int64 [n], from 0, in the order of the names of the groups, then of the images of the rest:
        by path and, in one file, by array, page and tile.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    records, pictures = manifest.records, manifest.pictures()
    links = [
        equal_pairs(pictures),
        equal_pairs([record.group for record in records]),
        equal_pairs(manifest.target_files()),
        equal_pairs(
            [
                (record.sha256, picture[1:]) if record.sha256 else None
                for record, picture in zip(records, pictures, strict=True)
            ]
        ),
    ]
    if pairs is not None:
        links.append(np.asarray(pairs, dtype=np.int64).reshape(-1, 2))
    one, other = np.concatenate(links).T
    graph = coo_array((np.ones(len(one), dtype=bool), (one, other)), (len(records),) * 2)
    count, component = connected_components(graph, directed=False)
    names: list[Any] = [None] * count
    for record, number in zip(records, component.tolist(), strict=True):
        own: tuple[Any, ...] = (
            ("group", record.group)
            if record.group
            else ("path", *image_of(record.path, record.reading, record.tile))
        )
        before = names[number]
        names[number] = own if before is None else min(before, own)
    rank = np.empty(count, dtype=np.int64)
    rank[sorted(range(count), key=names.__getitem__)] = np.arange(count)
    return rank[component]


def with_group_column(manifest: Manifest, group_by: str, source: str = "") -> Manifest:
    """Fills `group` from a column of the manifest or from the paths.

    Args:
        manifest: The images.
        group_by: Name of a column, or a regular expression, recognised by its parenthesis. The
            name of the group is then what the first parenthesis matches in the path, which is
            written from the deepest folder that holds all images, with `/` before it. An image is
            on its own if its column is empty, or if the first parenthesis takes no part in the
            match.
        source: The CSV file that the manifest was loaded from, for columns that records do not
            have.

    Returns:
        The manifest with `group` replaced.

    Raises:
        UserError: No such column, an expression that is wrong or does not match every path.
    """
    if "(" in group_by:
        names = _from_paths(inner_paths(manifest), group_by)
    elif group_by in COLUMNS:
        names = [getattr(record, group_by) for record in manifest.records]
    else:
        names = _from_csv(manifest, group_by, source)
    if not any(names):
        raise UserError("no image has a group", setting="group_by", value=group_by)
    return manifest.subset(
        replace(record, group=name) for record, name in zip(manifest.records, names, strict=True)
    )


def with_groups_of(manifest: Manifest, other: Manifest) -> Manifest:
    """Gives records the groups they have in another manifest of the same images."""
    own = (record.group for record in other.records)
    groups = dict(zip(other.images(), own, strict=True))
    return manifest.subset(
        replace(record, group=groups[image])
        for record, image in zip(manifest.records, manifest.images(), strict=True)
    )


def with_joined_groups(manifest: Manifest, pairs: np.ndarray) -> Manifest:
    """Writes what must stay together into `group`, so that later commands keep it together.

    Args:
        manifest: The images.
        pairs: int64 [m, 2], pairs of record indices that belong together.

    Returns:
        The manifest; records joined with others have the first of their groups' names or, without
        any, `like NAME` of the first picture. Records that are on their own, or with other tiles of
        their picture only, stay as they are.
    """
    unit = unit_numbers(manifest, pairs)
    names: dict[int, str] = {}
    first: dict[int, tuple[Picture, str]] = {}
    several: set[int] = set()
    for record, number, picture, path in zip(
        manifest.records, unit.tolist(), manifest.pictures(), inner_paths(manifest), strict=True
    ):
        if record.group:
            names[number] = min(names.get(number, record.group), record.group)
        own = picture._replace(file=path), image_name(path, record.reading)
        if first.setdefault(number, own)[0] != own[0]:
            several.add(number)
            first[number] = min(first[number], own)
    for number in several:
        names.setdefault(number, f"like {first[number][1].lstrip('/')}")
    return manifest.subset(
        replace(record, group=names.get(number, ""))
        for record, number in zip(manifest.records, unit.tolist(), strict=True)
    )


def linked_pairs(manifest: Manifest) -> np.ndarray:
    """Pairs of records that are the same picture of one file, by a symbolic or hard link.

    Returns:
        int64 [m, 2], record indices.

    Raises:
        UserError: A file is gone.
    """
    known: dict[str, tuple[int, int]] = {}
    try:
        for file in manifest.files():
            if file not in known:
                status = os.stat(file)
                known[file] = status.st_dev, status.st_ino
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    # Some file systems have no inode numbers and say 0.
    return equal_pairs(
        [
            (known[picture.file], picture[1:]) if known[picture.file][1] else None
            for picture in manifest.pictures()
        ]
    )


def inner_paths(manifest: Manifest) -> list[str]:
    """The paths below the deepest folder that holds all images, written `/a/b.png`.

    They are the same wherever the images lie and whatever the manifest's own folder is.
    """
    return below_common_folder(manifest.files())


def below_common_folder(files: Sequence[str]) -> list[str]:
    """The paths of files below the deepest folder that holds all of them, written `/a/b.png`."""
    common = common_folder(files)
    return ["/" + file[len(common) :].replace(os.sep, "/").lstrip("/") for file in files]


def equal_pairs(values: Sequence[Hashable]) -> np.ndarray:
    """Pairs (first index with a value, later one with it), int64 [m, 2]; empty values have none."""
    first: dict[Hashable, int] = {}
    pairs = [
        (before, index)
        for index, value in enumerate(values)
        if value and (before := first.setdefault(value, index)) != index
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _from_paths(paths: Sequence[str], pattern: str) -> list[str]:
    try:
        expression = re.compile(composed(pattern))
    except re.error as error:
        raise UserError(
            f"not a regular expression: {error}", setting="group_by", value=pattern
        ) from None
    if not expression.groups:
        raise UserError(
            "needs a group in parentheses, such as ([^/]*)_", setting="group_by", value=pattern
        )
    found = [expression.search(composed(path)) for path in paths]
    missed = [path for path, match in zip(paths, found, strict=True) if match is None]
    if missed:
        raise UserError(
            f"does not match {len(missed)} of {len(paths)} paths, such as"
            f" {missed[0]}; (...)? after it lets an image be on its own",
            setting="group_by",
            value=pattern,
        )
    return [match[1] or "" for match in found if match]


def _from_csv(manifest: Manifest, column: str, source: str) -> list[str]:
    """A column that records do not carry, read from the CSV by image.

    A row that names no array, page or tile speaks of all that its file holds.
    """
    table = read_csv(source) if source else None
    texts = table.texts(column) if table else None
    if table is None or texts is None:
        header = table.header if table else ()
        known = ", ".join(dict.fromkeys((*COLUMNS[1:], *filter(None, header[1:]))))
        raise UserError(
            f"no such column; there are {known}; a regular expression on the"
            " path needs a group in parentheses",
            setting="group_by",
            value=column,
        )
    # A row a record, in the same order.
    listed = _loaded_again(source, manifest.root)
    named = zip(listed.files(), listed.records, texts, strict=True)
    values = {(file, *_parts(record)): text for file, record, text in named}
    found = []
    for file, record in zip(manifest.files(), manifest.records, strict=True):
        value = _value_of(file, record, values)
        if value is None:
            raise UserError(f"{source} does not list {file}", setting="group_by", value=column)
        found.append(value)
    return found


_Parts: TypeAlias = tuple[str, str, str, str]
"""File, array, page and tile."""


def _parts(record: Record) -> tuple[str, str, str]:
    """The array, page and tile that a record names; empty = none."""
    return array_text(record.reading), page_text(record.reading), record.tile


def _value_of(file: str, record: Record, values: Mapping[_Parts, str]) -> str | None:
    """The value of the row that names the most of an image's array, page and tile."""
    for kept in product((True, False), repeat=3):
        array, page, tile = (
            part if keep else "" for part, keep in zip(_parts(record), kept, strict=True)
        )
        if (file, array, page, tile) in values:
            return values[file, array, page, tile]
    return None


def _loaded_again(source: str, root: str) -> Manifest:
    """The manifest of a CSV, with its images below the root where they were found before."""
    try:
        listed = Manifest.load(source)
    except UserError:  # paths of another machine
        listed = None
    return listed if listed and listed.root == root else Manifest.load(source, root)


NearDuplicates = Literal["together", "mirrored", "ignore"]
Progress = Callable[[int, int], None]

_NO_PAIRS = np.empty((0, 2), dtype=np.int64)


def _silent(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class GroupingSummary:
    """Summary of what is kept together: numbers and pairs.

    Attributes:
        groups: Groups that the images had, or got from a column or their paths.
        identical: Files that have the bytes of another one before them.
        identical_parts: Pages, images of stacks and tiles that have the values of another one.
        near_pairs: int64 [m, 2], record indices of images that look alike.
        near_across: Such pairs that are not of one group.
        pairs: int64 [m, 2], record indices of everything that was found to belong together: links,
            equal values, looks.
        units: Sets of pictures that a split deals out whole; a picture of no other set is one.
        largest: Pictures of the largest of them.
        pictures: Pictures in all: files, or pages, arrays and images of stacks in them.
        files: Files in all.
    """

    groups: int
    identical: int
    identical_parts: int
    near_pairs: np.ndarray
    near_across: int
    pairs: np.ndarray
    units: int
    largest: int
    pictures: int
    files: int

    def __str__(self) -> str:
        across = f" ({self.near_across} not of one group)" if self.groups else ""
        kinds = (
            (self.groups, "group", ""),
            (self.identical, "file", " with the bytes of another"),
            (self.identical_parts, "part", " of files with the pixels of another"),
            (len(self.near_pairs), "near-duplicate pair", across),
        )
        said = ", ".join(f"{counted(n, what)}{more}" for n, what, more in kinds if n) or "nothing"
        return (
            f"kept together: {said}; {counted(self.pictures, self.counted_as)} in"
            f" {counted(self.units, 'unit')}, the largest of {self.largest}"
        )

    @property
    def counted_as(self) -> str:
        """The word for what is counted: `file` if each file holds one picture, else `picture`."""
        return "file" if self.pictures == self.files else "picture"

    @property
    def chained(self) -> bool:
        """True if one unit holds so much that no split can come near the numbers wanted."""
        return self.largest > max(1, self.pictures / 5)


def keep_together(
    manifest: Manifest,
    *,
    group_by: str = "",
    source: str = "",
    hashes: bool = True,
    near_duplicates: NearDuplicates = "ignore",
    near_distance: int | None = None,
    progress: Callable[[str], Progress] = lambda what: _silent,
) -> tuple[Manifest, GroupingSummary]:
    """Writes into `group` what no split may tear, and into `sha256` the hashes of the files.

    Args:
        manifest: The images.
        group_by: A column, or a regular expression on the path; see `with_group_column`. Empty =
            the groups that the manifest has.
        source: The CSV file of the manifest, for columns that records do not have.
        hashes: Hash every file, and the values of images that are parts of files, so that identical
            ones are found. Parts of one value, such as empty tiles, are no copies.
        near_duplicates: Whether to look for images that look alike, and whether to do so in their
            mirrored and turned positions, too.
        near_distance: Bits in which the perceptual hashes of such images may differ; None = the
            usual number.
        progress: Makes a callback (done, all) from a word for what is counted.

    Returns:
        The manifest in the same order, and what was found.

    Raises:
        UserError: See `with_group_column`; files that are gone, or whose hash is not the one that
            the manifest has.
    """
    if group_by:
        manifest = with_group_column(manifest, group_by, source)
    if hashes:
        manifest = _with_hashes(manifest, progress("files hashed"))
    groups = [record.group for record in manifest.records]
    equal = _equal_parts(manifest, progress("parts of files hashed")) if hashes else _NO_PAIRS
    near = _NO_PAIRS
    if near_duplicates != "ignore":
        from data_prep.manifest.near_duplicates import NEAR_DISTANCE, looks_of, near_pairs

        near = near_pairs(
            looks_of(manifest, progress("images looked at")),
            NEAR_DISTANCE if near_distance is None else near_distance,
            turned=near_duplicates == "mirrored",
        )
    pairs = np.concatenate([linked_pairs(manifest), equal, near])
    joined = with_joined_groups(manifest, pairs)
    files, pictures = joined.files(), joined.pictures()
    members = set(zip(unit_numbers(joined).tolist(), pictures, strict=True))
    sizes = Counter(unit for unit, _ in members)
    hashed = {(r.sha256, file) for r, file in zip(joined.records, files, strict=True) if r.sha256}
    return joined, GroupingSummary(
        groups=len(set(groups) - {""}),
        identical=len(hashed) - len({sha256 for sha256, _ in hashed}),
        identical_parts=len(equal),
        near_pairs=near,
        near_across=sum(
            not groups[one] or groups[one] != groups[other] for one, other in near.tolist()
        ),
        pairs=pairs,
        units=len(sizes),
        largest=max(sizes.values()),
        pictures=len(set(pictures)),
        files=len(set(files)),
    )


def _equal_parts(manifest: Manifest, progress: Progress) -> np.ndarray:
    """Pairs (first part of a file with some values, later part with the same), int64 [m, 2]."""
    if not any(shares_file(record.reading, record.tile) for record in manifest.records):
        return _NO_PAIRS
    from data_prep.manifest.near_duplicates import part_hashes

    return equal_pairs(part_hashes(manifest, progress))


def torn_pairs(manifest: Manifest, kept: GroupingSummary, whole: Manifest) -> int:
    """Number of the pairs found to belong together whose images are in two splits.

    Args:
        manifest: Images with splits.
        kept: The pairs that were found.
        whole: The images that the pairs were found among, in their order.
    """
    splits = dict(zip(manifest.images(), (r.split for r in manifest.records), strict=True))
    images = whole.images()
    own = [splits.get(image) for image in images]
    return sum(
        own[one] is not None and own[other] is not None and own[one] != own[other]
        for one, other in kept.pairs.tolist()
    )


def torn_units(manifest: Manifest) -> int:
    """Number of the sets kept together that have images in more than one split."""
    splits: dict[int, set[str]] = {}
    for unit, record in zip(unit_numbers(manifest).tolist(), manifest.records, strict=True):
        splits.setdefault(unit, set()).add(record.split)
    return sum(len(names) > 1 for names in splits.values())


def _with_hashes(manifest: Manifest, progress: Progress) -> Manifest:
    from data_prep.manifest.near_duplicates import file_hashes

    files = manifest.files()
    unique = list(dict.fromkeys(files))
    found = dict(zip(unique, file_hashes(unique, progress=progress), strict=True))
    changed = [
        file
        for record, file in zip(manifest.records, files, strict=True)
        if record.sha256 and record.sha256 != found[file]
    ]
    if changed:
        raise UserError(
            f"{counted(len(changed), 'file')} {'is' if len(changed) == 1 else 'are'} not what the"
            " manifest was made of, such as"
            f" {changed[0]}; make the manifest anew"
        )
    return manifest.subset(
        replace(record, sha256=found[file])
        for record, file in zip(manifest.records, files, strict=True)
    )
