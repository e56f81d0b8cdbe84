"""Finding what must stay together before a split: groups, links, identical and similar images."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.groups import (
    equal_pairs,
    linked_pairs,
    unit_numbers,
    with_group_column,
    with_joined_groups,
)
from data_prep.manifest.identity import shares_file
from data_prep.manifest.manifest import Manifest
from data_prep.phrases import counted

NearDuplicates = Literal["together", "mirrored", "ignore"]
Progress = Callable[[int, int], None]

_NO_PAIRS = np.empty((0, 2), dtype=np.int64)


def _silent(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Kept:
    """What is kept together, in numbers.

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
        """The word for what is counted: file, if each holds one picture."""
        return "file" if self.pictures == self.files else "picture"

    @property
    def chained(self) -> bool:
        """Whether one unit holds so much that no split can be near the numbers wanted."""
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
) -> tuple[Manifest, Kept]:
    """Writes into `group` what no split may tear, and into `sha256` the hashes of the files.

    Args:
        manifest: The images.
        group_by: A column, or a regular expression on the path; see `with_group_column`. Empty =
            the groups that the manifest has.
        source: The CSV file of the manifest, for columns that records do not have.
        hashes: Hash every file, and the values of images that are parts of files, so that identical
            ones are found. Parts of one value, such as empty tiles, are no copies.
        near_duplicates: Whether images that look alike are looked for, and whether in any of
            their mirrored and turned positions, too.
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
    return joined, Kept(
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


def torn_pairs(manifest: Manifest, kept: Kept, whole: Manifest) -> int:
    """Number of the pairs found to belong together whose images are in two splits.

    Args:
        manifest: Images with splits.
        kept: What was found.
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
