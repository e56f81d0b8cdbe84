"""Seeded splits of a manifest: exact in number, stratified by class, groups never torn."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.allocation import apportion_table
from data_prep.manifest.dealing import deal
from data_prep.manifest.groups import unit_numbers
from data_prep.manifest.identity import image_of
from data_prep.manifest.manifest import Manifest, canonical_split
from data_prep.phrases import counted

# Few units may come out badly by the chance of the first deal; many do not.
_STARTS = 12
_FEW_UNITS = 2000


def stratified_split(manifest: Manifest, ratios: Mapping[str, float], seed: int) -> Manifest:
    """Assigns every image to a split.

    The size of each split is exact by largest remainder, and so is, to within one image, its share
    of every class (images without a label count as a class). What must stay together (a group,
    the tiles of one picture, files of the same hash) goes into one split: such units are dealt
    out, the largest first, and exchanged until the numbers come no nearer. The result depends on
    the images (path, page, tile), their labels, groups and hashes, not on their order.

    Args:
        manifest: The images; splits they have are replaced.
        ratios: Split -> share, above 0, with sum 1.
        seed: Another seed, another split.

    Returns:
        The manifest in the same order, with `split` filled.

    Raises:
        UserError: Impossible shares, or a split that would stay empty.
    """
    _check_ratios(ratios)
    names, shares = list(ratios), list(ratios.values())
    classes = by_label(manifest)
    wanted = apportion_table([len(indices) for indices in classes.values()], shares)
    units = unit_numbers(manifest)
    num_units = int(units.max()) + 1
    if num_units < len(manifest) or any(record.group for record in manifest.records):
        row = {label: number for number, label in enumerate(classes)}
        labels = np.array([row[record.label] for record in manifest.records])
        chosen = _deal_units(units, labels, wanted, seed)[units]
    else:
        chosen = np.empty(len(manifest), dtype=np.int64)
        for (label, indices), counts in zip(classes.items(), wanted, strict=True):
            order = generator(seed, "split", label).permutation(indices)
            chosen[order] = np.repeat(np.arange(len(names)), counts)
    sizes = np.bincount(chosen, minlength=len(names))
    if not sizes.all():
        dealt = (
            counted(num_units, "group")
            if num_units < len(manifest)
            else counted(len(manifest), "image")
        )
        raise UserError(
            f"{dealt} are too few for the split {names[int(np.argmin(sizes))]!r}"
            f" ({shares[int(np.argmin(sizes))]:.3g} of the images)"
        )
    return manifest.subset(
        replace(record, split=names[split])
        for record, split in zip(manifest.records, chosen, strict=True)
    )


def parse_ratios(text: str) -> dict[str, float]:
    """Reads shares such as `train:0.7,validation:0.15,test:0.15`.

    Raises:
        UserError: The text does not say a number for each name, or a name twice.
    """
    ratios: dict[str, float] = {}
    for part in text.split(","):
        written, _, number = part.partition(":")
        name = canonical_split(written)
        try:
            share = float(number)
        except ValueError:
            share = None
        if share is None or not name:
            raise UserError(f"split ratios {text!r}: {part!r} is not NAME:SHARE, such as train:0.7")
        if name in ratios:
            raise UserError(f"split ratios {text!r}: the split {name!r} is named twice")
        ratios[name] = share
    return ratios


def labels_per_class(manifest: Manifest, number: int, seed: int) -> Manifest:
    """Draws the same number of labelled images from every class.

    With the same seed the draw of a smaller number is part of the draw of a larger one.

    Args:
        manifest: The images; those without a label are left out.
        number: Images a class, at least 1.
        seed: Another seed, another draw.

    Returns:
        The drawn images in the manifest's order.

    Raises:
        UserError: A class has fewer images, or there are no labels.
    """
    if number < 1:
        raise UserError(f"labels per class must be at least 1, not {number}")
    classes = {label: indices for label, indices in by_label(manifest).items() if label}
    if not classes:
        raise UserError("no image has a label to draw from")
    chosen: set[int] = set()
    for label, indices in classes.items():
        if len(indices) < number:
            raise UserError(
                f"class {label!r} has {counted(len(indices), 'image')}, fewer than the"
                f" {number} asked for"
            )
        chosen.update(generator(seed, "labels", label).permutation(indices)[:number].tolist())
    return manifest.subset(manifest.records[index] for index in sorted(chosen))


def _check_ratios(ratios: Mapping[str, float]) -> None:
    if not ratios or any(not share > 0 for share in ratios.values()):
        raise UserError(f"every split needs a share above 0, not {dict(ratios)}")
    if abs(sum(ratios.values()) - 1) > 1e-6:
        raise UserError(f"the shares of the splits must add up to 1, not {sum(ratios.values()):g}")


def by_label(manifest: Manifest) -> dict[str, list[int]]:
    """Indices of the records of every label, sorted by label and, within, by image.

    That is by path and, in one file, by array, page and tile.
    """
    keys = [image_of(record.path, record.reading, record.tile) for record in manifest.records]
    classes: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(keys)), key=keys.__getitem__):
        classes[manifest.records[index].label].append(index)
    return dict(sorted(classes.items()))


def generator(seed: int, *words: str) -> np.random.Generator:
    """Random numbers that belong to a seed and some words, whatever else is drawn."""
    digest = hashlib.sha256("\x1f".join((str(seed), *words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _deal_units(units: np.ndarray, labels: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    """Split of every unit."""
    counts = np.zeros((int(units.max()) + 1, len(wanted)), dtype=np.int64)
    np.add.at(counts, (units, labels), 1)
    starts = _STARTS if len(counts) <= _FEW_UNITS else 1
    words = [("groups",), *(("groups", str(start)) for start in range(1, starts))]
    orders = (generator(seed, *word).permutation(len(counts)) for word in words)
    return deal(counts, wanted, orders)
