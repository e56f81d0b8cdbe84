"""Seeded splits of a manifest: exact in number, stratified by class, groups never torn."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from data_prep.apportion import apportion_table
from data_prep.errors import UserError
from data_prep.manifest import Manifest, Record, canonical_split


def stratified_split(manifest: Manifest, ratios: Mapping[str, float], seed: int) -> Manifest:
    """Assigns every image to a split.

    The size of each split is exact by largest remainder, and so is, to within one image, its share
    of every class (images without a label count as a class). With groups, whole groups are dealt
    out, the largest first, as near to those numbers as they allow. The result depends on the
    paths, labels and groups of the images, not on their order.

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
    classes = _by_label(manifest)
    wanted = apportion_table([len(indices) for indices in classes.values()], shares)
    if any(record.group for record in manifest.records):
        chosen = _deal_groups(manifest, list(classes), wanted, seed)
    else:
        chosen = np.empty(len(manifest), dtype=np.int64)
        for (label, indices), counts in zip(classes.items(), wanted, strict=True):
            order = _generator(seed, "split", label).permutation(indices)
            chosen[order] = np.repeat(np.arange(len(names)), counts)
    sizes = np.bincount(chosen, minlength=len(names))
    if not sizes.all():
        units = _count_units(manifest)
        raise UserError(
            f"{units} are too few for the split {names[int(np.argmin(sizes))]!r}"
            f" ({shares[int(np.argmin(sizes))]:.3g} of the images)"
        )
    return manifest.subset(
        replace(record, split=names[split])
        for record, split in zip(manifest.records, chosen, strict=True)
    )


def parse_ratios(text: str) -> dict[str, float]:
    """Reads shares such as `train:0.7,validation:0.15,test:0.15`.

    Raises:
        UserError: The text does not say a number for each name.
    """
    ratios = {}
    for part in text.split(","):
        name, _, number = part.partition(":")
        try:
            ratios[canonical_split(name.strip())] = float(number)
        except ValueError:
            raise UserError(
                f"split ratios {text!r}: {part!r} is not NAME:SHARE, such as train:0.7"
            ) from None
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
    classes = {label: indices for label, indices in _by_label(manifest).items() if label}
    if not classes:
        raise UserError("no image has a label to draw from")
    chosen: set[int] = set()
    for label, indices in classes.items():
        if len(indices) < number:
            raise UserError(
                f"class {label!r} has {len(indices)} images, fewer than the {number} asked for"
            )
        chosen.update(_generator(seed, "labels", label).permutation(indices)[:number].tolist())
    return manifest.subset(manifest.records[index] for index in sorted(chosen))


def _check_ratios(ratios: Mapping[str, float]) -> None:
    if not ratios or any(not share > 0 for share in ratios.values()):
        raise UserError(f"every split needs a share above 0, not {dict(ratios)}")
    if abs(sum(ratios.values()) - 1) > 1e-6:
        raise UserError(f"the shares of the splits must add up to 1, not {sum(ratios.values()):g}")


def _by_label(manifest: Manifest) -> dict[str, list[int]]:
    """Indices of the records of every label, sorted by label and, within, by path."""
    records = manifest.records
    classes: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(records)), key=lambda index: records[index].path):
        classes[records[index].label].append(index)
    return dict(sorted(classes.items()))


def _generator(seed: int, *words: str) -> np.random.Generator:
    """Random numbers that belong to a seed and some words, whatever else is drawn."""
    digest = hashlib.sha256("\x1f".join((str(seed), *words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _unit(record: Record) -> tuple[str, str]:
    """Records of one unit stay together; without a group an image is its own."""
    return ("group", record.group) if record.group else ("path", record.path)


def _count_units(manifest: Manifest) -> str:
    units = {_unit(record) for record in manifest.records}
    grouped = len(units) < len(manifest)
    return f"{len(units)} groups" if grouped else f"{len(manifest)} images"


def _deal_groups(
    manifest: Manifest, labels: Sequence[str], wanted: np.ndarray, seed: int
) -> np.ndarray:
    """Split of every record; groups go, largest first, where they fill the table best."""
    position = {label: row for row, label in enumerate(labels)}
    units: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index in _sorted_by_path(manifest.records):
        units[_unit(manifest.records[index])].append(index)
    members = [units[key] for key in sorted(units)]
    order = _generator(seed, "groups").permutation(len(members))
    missing = wanted.astype(np.float64)
    chosen = np.empty(len(manifest), dtype=np.int64)
    for unit in sorted(order.tolist(), key=lambda unit: -len(members[unit])):
        rows = [position[manifest.records[index].label] for index in members[unit]]
        counts = np.bincount(rows, minlength=len(labels))[:, np.newaxis]
        # Squared misfit of the class table and of the sizes of the splits, before and after.
        gain = (missing**2 - (missing - counts) ** 2).sum(axis=0)
        total = missing.sum(axis=0)
        gain += total**2 - (total - counts.sum()) ** 2
        split = int(np.argmax(gain))
        missing[:, split] -= counts[:, 0]
        chosen[members[unit]] = split
    _fill_empty(chosen, members, wanted.shape[1])
    return chosen


def _fill_empty(chosen: np.ndarray, members: Sequence[list[int]], num_splits: int) -> None:
    """Gives splits that got no group the smallest group of a split with several."""
    for split in range(num_splits):
        home = np.array([chosen[unit[0]] for unit in members])
        several = np.bincount(home, minlength=num_splits)[home] > 1
        if split not in home and several.any():
            movable = np.flatnonzero(several).tolist()
            smallest = min(movable, key=lambda unit: len(members[unit]))
            chosen[members[smallest]] = split


def _sorted_by_path(records: Sequence[Record]) -> Iterable[int]:
    return sorted(range(len(records)), key=lambda index: records[index].path)
