"""Finding what must stay together before a split: groups, links, identical and similar images."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from data_prep.counting import counted
from data_prep.errors import UserError
from data_prep.grouping import (
    linked_pairs,
    unit_numbers,
    with_group_column,
    with_joined_groups,
)
from data_prep.manifest import Manifest

NearDuplicates = Literal["together", "mirrored", "ignore"]
Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Kept:
    """What is kept together, in numbers.

    Attributes:
        groups: Groups that the images had, or got from a column or their paths.
        identical: Files that have the bytes of another one before them.
        near_pairs: int64 [m, 2], record indices of images that look alike.
        near_across: Such pairs that are not of one group.
        units: Sets of files that a split deals out whole; a file of no other set is one.
        largest: Files of the largest of them.
        files: Files in all.
    """

    groups: int
    identical: int
    near_pairs: np.ndarray
    near_across: int
    units: int
    largest: int
    files: int

    def __str__(self) -> str:
        across = f" ({self.near_across} not of one group)" if self.groups else ""
        kinds = (
            (self.groups, "group", ""),
            (self.identical, "file", " with the bytes of another"),
            (len(self.near_pairs), "near-duplicate pair", across),
        )
        said = ", ".join(f"{counted(n, what)}{more}" for n, what, more in kinds if n) or "nothing"
        return (
            f"kept together: {said}; {counted(self.files, 'file')} in"
            f" {counted(self.units, 'unit')}, the largest of"
            f" {self.largest}"
        )

    @property
    def chained(self) -> bool:
        """Whether one unit holds so much that no split can be near the numbers wanted."""
        return self.largest > max(1, self.files / 5)


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
        hashes: Hash every file, so that identical ones are found.
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
    near = np.empty((0, 2), dtype=np.int64)
    if near_duplicates != "ignore":
        from data_prep.likeness import NEAR_DISTANCE, looks_of, near_pairs

        near = near_pairs(
            looks_of(manifest, progress("images looked at")),
            NEAR_DISTANCE if near_distance is None else near_distance,
            turned=near_duplicates == "mirrored",
        )
    joined = with_joined_groups(manifest, np.concatenate([linked_pairs(manifest), near]))
    files = joined.files()
    members = set(zip(unit_numbers(joined).tolist(), files, strict=True))
    sizes = Counter(unit for unit, _ in members)
    hashed = {(r.sha256, file) for r, file in zip(joined.records, files, strict=True) if r.sha256}
    return joined, Kept(
        groups=len(set(groups) - {""}),
        identical=len(hashed) - len({sha256 for sha256, _ in hashed}),
        near_pairs=near,
        near_across=sum(
            not groups[one] or groups[one] != groups[other] for one, other in near.tolist()
        ),
        units=len(sizes),
        largest=max(sizes.values()),
        files=len(set(files)),
    )


def torn_units(manifest: Manifest) -> int:
    """Number of the sets kept together that have images in more than one split."""
    splits: dict[int, set[str]] = {}
    for unit, record in zip(unit_numbers(manifest).tolist(), manifest.records, strict=True):
        splits.setdefault(unit, set()).add(record.split)
    return sum(len(names) > 1 for names in splits.values())


def _with_hashes(manifest: Manifest, progress: Progress) -> Manifest:
    from data_prep.likeness import file_hashes

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
