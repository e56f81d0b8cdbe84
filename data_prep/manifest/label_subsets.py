"""Fewer labels, or fewer images: nested draws, stratified, the same for the same seed."""

from collections.abc import Set
from dataclasses import replace
from typing import Literal

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.allocation import apportion
from data_prep.manifest.groups import unit_numbers
from data_prep.manifest.identity import Image
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.splits import by_label, generator, labels_per_class

Unchosen = Literal["unlabelled", "left_out"]
_LABELS = "labels"


def label_fraction(
    manifest: Manifest,
    seed: int,
    *,
    fraction: float | None = None,
    per_class: int | None = None,
    split: str = "train",
    unchosen: Unchosen = "unlabelled",
    whole_groups: bool = False,
) -> Manifest:
    """Leaves labels to some of the training images only.

    With the same seed a smaller fraction is part of a larger one, as is a smaller number a class.
    The number of labels is exact, every class has one at least, and beyond that the classes keep
    their proportions. Single images are drawn in the order of `labels_per_class`.

    Args:
        manifest: The images; those of other splits stay as they are, and so do training images
            without a label.
        seed: Another seed, another draw.
        fraction: Share of the labelled training images that keep the label, in (0, 1].
        per_class: Or how many of each class.
        split: The split to draw from; without any splits all images are drawn from.
        unchosen: Whether the others lose their label or are left out.
        whole_groups: Draw groups (all that stays together in a split) whole; the number of labels
            is then the nearest there is.

    Returns:
        The manifest, in the same order.

    Raises:
        UserError: No such split, no labels, or too few of them for every class.
    """
    if (fraction is None) == (per_class is None):
        raise UserError("give either a fraction or a number of labels per class")
    pool = manifest.split(split) if manifest.splits else manifest
    labeled = pool.subset(record for record in pool.records if record.label)
    if not labeled.records:
        raise UserError(f"no image of the split {split!r} has a label to draw from")
    if per_class is not None:
        if whole_groups:
            raise UserError("a number of labels per class draws single images; give a fraction")
        drawn = labels_per_class(labeled, per_class, seed)
    else:
        assert fraction is not None
        drawn = _share(labeled, fraction, seed, _LABELS, whole_groups)
        lost = set(labeled.class_names).difference(drawn.class_names)
        if lost:
            raise UserError(
                f"a fraction of {fraction:g} of {len(labeled)} labelled images is {len(drawn)},"
                f" too few for the {len(labeled.class_names)} classes"
            )
    touched = set(labeled.images()).difference(drawn.images())
    if unchosen == "left_out":
        return _without(manifest, touched)
    return manifest.subset(
        replace(record, label="") if image in touched else record
        for record, image in zip(manifest.records, manifest.images(), strict=True)
    )


def pool_subset(manifest: Manifest, split: str, share: float, seed: int) -> Manifest:
    """Keeps a share of the images of one split, stratified; the other splits stay as they are.

    With the same seed a smaller share is part of a larger one.

    Args:
        manifest: The images.
        split: The split to thin out.
        share: The share of it that is kept, in (0, 1].
        seed: Another seed, another draw.

    Returns:
        The manifest without the other images, in the same order.

    Raises:
        UserError: No such split, or a share that leaves nothing.
    """
    pool = manifest.split(split)
    kept = _share(pool, share, seed, "subset", whole_groups=False)
    return _without(manifest, set(pool.images()).difference(kept.images()))


def _without(manifest: Manifest, dropped: Set[Image]) -> Manifest:
    return manifest.subset(
        record
        for record, image in zip(manifest.records, manifest.images(), strict=True)
        if image not in dropped
    )


def _share(manifest: Manifest, share: float, seed: int, word: str, whole_groups: bool) -> Manifest:
    """The first part of the nested order that comes nearest to the share."""
    if not 0 < share <= 1:
        raise UserError(f"a fraction must be above 0 and at most 1, not {share:g}")
    number = int(apportion(len(manifest), [share, 1 - share])[0])
    units = unit_numbers(manifest) if whole_groups else np.arange(len(manifest))
    order = _nested_order(manifest, units, seed, word)
    sizes = np.bincount(units)[order].cumsum()
    taken = int(np.argmin(np.abs(sizes - number))) + 1 if number else 0
    if not taken:
        raise UserError(f"a fraction of {share:g} of {len(manifest)} images is none")
    return manifest.subset(
        manifest.records[i] for i in np.flatnonzero(np.isin(units, order[:taken]))
    )


def _nested_order(manifest: Manifest, units: np.ndarray, seed: int, word: str) -> np.ndarray:
    """Units in an order of which every first part keeps the proportions of the classes.

    The next unit is always of the class that is furthest behind: first of one that has none yet,
    then that with the largest N / (2 a + 1), for N images of which a are taken (Webster's method,
    whose seats never shrink as the house grows).
    """
    classes = by_label(manifest)
    totals = np.array([len(indices) for indices in classes.values()])
    row_of = np.empty(len(manifest), dtype=np.int64)
    queues: list[list[int]] = []
    for row, (label, indices) in enumerate(classes.items()):
        row_of[indices] = row
        drawn = generator(seed, word, label).permutation(indices)
        queues.append(list(dict.fromkeys(units[drawn].tolist()))[::-1])
    by_unit = np.argsort(units, kind="stable")
    members = np.split(row_of[by_unit], np.cumsum(np.bincount(units))[:-1])
    taken = np.zeros(len(totals), dtype=np.int64)
    behind = 2.0 * totals.sum() + totals  # how far behind each class is; -1 = nothing left of it
    order: list[int] = []
    used = np.zeros(len(members), dtype=bool)
    while behind[row := int(np.argmax(behind))] >= 0:
        while queues[row] and used[queues[row][-1]]:
            queues[row].pop()
        if not queues[row]:
            behind[row] = -1.0
            continue
        unit = queues[row].pop()
        used[unit] = True
        order.append(unit)
        np.add.at(taken, members[unit], 1)
        rows = members[unit][behind[members[unit]] >= 0]
        behind[rows] = totals[rows] / (2 * taken[rows] + 1)
    return np.array(order)
