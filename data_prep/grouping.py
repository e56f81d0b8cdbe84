"""What must stay together: groups, tiles of a picture, links, identical and similar images."""

import os
import re
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from data_prep.csv_files import read_csv
from data_prep.errors import UserError
from data_prep.manifest import COLUMNS, Manifest
from data_prep.names import composed


def unit_numbers(manifest: Manifest, pairs: np.ndarray | None = None) -> np.ndarray:
    """Numbers the sets of records that must stay together.

    Together are records of one picture (its tiles), of one group, of one target, of one hash, and
    those of a pair; whatever is together with the same record is together, too.

    Args:
        manifest: The records.
        pairs: int64 [m, 2], further pairs of record indices.

    Returns:
        int64 [n], from 0, in the order of the names of the groups, then of the paths of the rest.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    records = manifest.records
    links = [
        _same(manifest.pictures()),
        _same([record.group for record in records]),
        _same(manifest.target_files()),
        _same(
            [
                (record.sha256, page) if record.sha256 else None
                for record, (_, page) in zip(records, manifest.pictures(), strict=True)
            ]
        ),
    ]
    if pairs is not None:
        links.append(np.asarray(pairs, dtype=np.int64).reshape(-1, 2))
    one, other = np.concatenate(links).T
    graph = coo_array((np.ones(len(one), dtype=bool), (one, other)), (len(records),) * 2)
    count, component = connected_components(graph, directed=False)
    names: list[tuple[str, str]] = [("~", "")] * count
    for record, number in zip(records, component.tolist(), strict=True):
        own = ("group", record.group) if record.group else ("path", record.path)
        names[number] = min(names[number], own)
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
    groups = {(record.path, record.tile): record.group for record in other.records}
    return manifest.subset(
        replace(record, group=groups[record.path, record.tile]) for record in manifest.records
    )


def with_joined_groups(manifest: Manifest, pairs: np.ndarray) -> Manifest:
    """Writes what must stay together into `group`, so that later commands keep to it.

    Args:
        manifest: The images.
        pairs: int64 [m, 2], pairs of record indices that belong together.

    Returns:
        The manifest; records joined with others have the first of their groups' names or, without
        any, `like PATH` of the first file. Records that are on their own stay as they are.
    """
    unit = unit_numbers(manifest, pairs)
    paths = inner_paths(manifest)
    names: dict[int, str] = {}
    first: dict[int, str] = {}
    several: set[int] = set()
    for record, number, path in zip(manifest.records, unit.tolist(), paths, strict=True):
        if record.group:
            names[number] = min(names.get(number, record.group), record.group)
        if first.setdefault(number, path) != path:
            several.add(number)
            first[number] = min(first[number], path)
    for number in several:
        names.setdefault(number, f"like {first[number].lstrip('/')}")
    return manifest.subset(
        replace(record, group=names.get(number, ""))
        for record, number in zip(manifest.records, unit.tolist(), strict=True)
    )


def linked_pairs(manifest: Manifest) -> np.ndarray:
    """Pairs of records whose files are one file on disk, by a symbolic or hard link.

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
    return _same(
        [(known[file], page) if known[file][1] else None for file, page in manifest.pictures()]
    )


def common_folder(manifest: Manifest) -> str:
    """The deepest folder that holds all images, absolute."""
    return os.path.commonpath([os.path.dirname(file) for file in manifest.files()])


def inner_paths(manifest: Manifest) -> list[str]:
    """The paths below the deepest folder that holds all images, written `/a/b.png`.

    They are the same wherever the images lie and whatever the manifest's own folder is.
    """
    files, common = manifest.files(), common_folder(manifest)
    return ["/" + file[len(common) :].replace(os.sep, "/").lstrip("/") for file in files]


def _same(values: Sequence[Hashable]) -> np.ndarray:
    """Pairs (first index with a value, later index with it); empty values pair with nothing."""
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
    """A column that records do not carry, read from the CSV by file, page and tile."""
    table = read_csv(source) if source else None
    texts = table.texts(column) if table else None
    if table is None or texts is None:
        header = table.header if table else ()
        known = ", ".join(dict.fromkeys((*COLUMNS[1:], *filter(None, header[1:]))))
        raise UserError(
            f"--group_by={column}: no such column; there are {known}; a regular expression on the"
            " path needs a group in parentheses"
        )
    # A row a record, in the same order; a file's pages and tiles have the group of the file.
    listed = _loaded_again(source, manifest.root)
    values: dict[tuple[str, ...], str] = {}
    for (file, page), record, text in zip(listed.pictures(), listed.records, texts, strict=True):
        values[file, page, record.tile] = text
    found = []
    for (file, page), record in zip(manifest.pictures(), manifest.records, strict=True):
        keys = (
            (file, page, record.tile),
            (file, page, ""),
            (file, "", record.tile),
            (file, "", ""),
        )
        key = next((key for key in keys if key in values), None)
        if key is None:
            raise UserError(f"--group_by={column}: {source} does not list {file}")
        found.append(values[key])
    return found


def _loaded_again(source: str, root: str) -> Manifest:
    """The manifest of a CSV, with its images below the root where they were found before."""
    try:
        listed = Manifest.load(source)
    except UserError:  # paths of another machine
        listed = None
    return listed if listed and listed.root == root else Manifest.load(source, root)
