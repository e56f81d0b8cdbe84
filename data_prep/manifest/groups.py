"""What must stay together: groups, tiles of a picture, links, identical and similar images."""

import os
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from data_prep.csv_files import read_csv
from data_prep.errors import UserError
from data_prep.manifest.identity import Picture, array_text, image_name, image_of, page_text
from data_prep.manifest.manifest import COLUMNS, Manifest, Record
from data_prep.manifest.root import common_folder
from data_prep.names import composed


def unit_numbers(manifest: Manifest, pairs: np.ndarray | None = None) -> np.ndarray:
    """Numbers the sets of records that must stay together.

    Together are records of one picture (its tiles), of one group, of one target, those of the same
    picture in files of one hash, and those of a pair; whatever is together with the same record is
    together, too.

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
        group_by: Name of a column, or a regular expression, told by its parenthesis: what its
            first group matches in the path is the name. The path is written from the deepest
            folder that holds all images, with `/` before it. An image for which the first group
            takes no part, or whose column is empty, is on its own.
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
        raise UserError(f"--group_by={group_by}: no image has a group")
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
    """Writes what must stay together into `group`, so that later commands keep to it.

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
    """Pairs of the same picture in what is one file on disk, by a symbolic or hard link.

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
        raise UserError(f"--group_by={pattern}: not a regular expression: {error}") from None
    if not expression.groups:
        raise UserError(f"--group_by={pattern}: needs a group in parentheses, such as ([^/]*)_")
    found = [expression.search(composed(path)) for path in paths]
    missed = [path for path, match in zip(paths, found, strict=True) if match is None]
    if missed:
        raise UserError(
            f"--group_by={pattern}: does not match {len(missed)} of {len(paths)} paths, such as"
            f" {missed[0]}; (...)? after it lets an image be on its own"
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
            f"--group_by={column}: no such column; there are {known}; a regular expression on the"
            " path needs a group in parentheses"
        )
    # A row a record, in the same order.
    listed = _loaded_again(source, manifest.root)
    named = zip(listed.files(), listed.records, texts, strict=True)
    values = {(file, *_parts(record)): text for file, record, text in named}
    found = []
    for file, record in zip(manifest.files(), manifest.records, strict=True):
        value = _value_of(file, record, values)
        if value is None:
            raise UserError(f"--group_by={column}: {source} does not list {file}")
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
