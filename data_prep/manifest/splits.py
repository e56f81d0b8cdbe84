"""Seeded splits and folds of a manifest: exact, stratified by class, groups never torn."""

import difflib
import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.allocation import apportion_table, deal
from data_prep.manifest.groups import unit_numbers
from data_prep.manifest.identity import image_of
from data_prep.manifest.manifest import Manifest, canonical_split
from data_prep.names import clean_name
from data_prep.phrases import counted
from data_prep.storage import new_folder

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


_REST = "the rest"


@dataclass(frozen=True)
class FoldPlan:
    """Plan of the folds of one cross-validation.

    Attributes:
        count: Number of folds.
        split: The split that goes round: no image is in it in two folds.
        share: Its share of all images in each fold; None = every image that is not sealed is in
            this split in exactly one fold.
        sealed: Splits that are the same in every fold, with their shares of all images.
        rest: Shares of the splits that what remains of a fold is dealt out to, with sum 1.
    """

    count: int
    split: str = "test"
    share: float | None = None
    sealed: Mapping[str, float] = field(default_factory=dict)
    rest: Mapping[str, float] = field(default_factory=lambda: {"train": 1.0})


def make_folds(manifest: Manifest, plan: FoldPlan, seed: int) -> list[Manifest]:
    """Deals the images out to folds, stratified and with groups whole as in `stratified_split`.

    Examples of plans: `FoldPlan(4, "validation", sealed={"test": 0.1})` trains on 67.5 %, validates
    on 22.5 % and keeps 10 % out of all four folds; `FoldPlan(3, "train", share=0.1,
    rest={"validation": 0.25, "test": 0.75})` trains three times on another 10 %.

    Args:
        manifest: The images; splits they have are replaced.
        plan: The folds.
        seed: Another seed, other folds.

    Returns:
        A manifest a fold, each with all records in the order of `manifest`.

    Raises:
        UserError: Shares that do not go together, or too few images or groups for a part.
    """
    parts = _parts(plan)
    dealt = stratified_split(manifest, parts, seed)
    return [_fold(dealt, plan, number, seed) for number in range(1, plan.count + 1)]


def fold_names(count: int) -> list[str]:
    """`fold_1`, `fold_2`, ...; with zeros before the number where the names would not sort."""
    return [f"fold_{number:0{len(str(count))}d}" for number in range(1, count + 1)]


def save_folds(folds: Mapping[str, Manifest], folder: str | os.PathLike[str]) -> None:
    """Writes a manifest a fold, NAME.csv, to a new folder: all of them or none.

    Args:
        folds: Name -> manifest.
        folder: A folder that does not exist yet or is empty.

    Raises:
        UserError: The folder holds something.
    """
    with new_folder(folder) as work:
        for name, manifest in folds.items():
            manifest.save(work / f"{name}.csv")


def _parts(plan: FoldPlan) -> dict[str, float]:
    """Shares of the parts that are dealt out once for all folds."""
    if plan.count < 2:
        raise UserError("must be 2 or more", setting="folds", value=plan.count)
    names = [plan.split, *plan.sealed, *plan.rest]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(
            f"the split {twice!r} has two parts to play in the folds; the split that goes round,"
            " sealed splits and the splits of the rest need different names"
        )
    free = 1 - sum(plan.sealed.values())
    if any(not share > 0 for share in plan.sealed.values()) or free <= 0:
        raise UserError(f"sealed splits need shares above 0 and below 1 in all, not {plan.sealed}")
    share = free / plan.count if plan.share is None else plan.share
    if not 0 < share <= free / plan.count + 1e-9:
        raise UserError(
            f"{plan.count} folds with {share:g} of the images each need {plan.count * share:g}, and"
            f" there is {free:g}"
        )
    parts = dict(plan.sealed) | {_part(n): share for n in range(1, plan.count + 1)}
    left = free - share * plan.count
    return parts | ({_REST: left} if left > 1e-9 else {})


def _part(number: int) -> str:
    return f"fold {number}"


def _fold(dealt: Manifest, plan: FoldPlan, number: int, seed: int) -> Manifest:
    fixed = {name: name for name in plan.sealed} | {_part(number): plan.split}
    remaining = [index for index, r in enumerate(dealt.records) if r.split not in fixed]
    own_seed = int(generator(seed, "fold", str(number)).integers(2**62))
    rest = stratified_split(
        dealt.subset(dealt.records[index] for index in remaining), plan.rest, own_seed
    )
    splits = [fixed.get(record.split, "") for record in dealt.records]
    for index, record in zip(remaining, rest.records, strict=True):
        splits[index] = record.split
    return dealt.subset(
        replace(record, split=split) for record, split in zip(dealt.records, splits, strict=True)
    )


def parse_merges(texts: Sequence[str]) -> dict[str, list[str]]:
    """Reads texts such as `disturbance:crack,brecciated`: new class -> those that go into it.

    Raises:
        UserError: A text does not say that.
    """
    merges: dict[str, list[str]] = {}
    for text in texts:
        name, _, members = text.partition(":")
        old = [clean_name(member) for member in members.split(",") if clean_name(member)]
        if not clean_name(name) or not old:
            raise UserError("must be NEW:CLASS,CLASS,...", setting="merge", value=text)
        merges.setdefault(clean_name(name), []).extend(old)
    return merges


def merge_classes(manifest: Manifest, merges: Mapping[str, Sequence[str]]) -> Manifest:
    """Gives classes a common name; all others keep theirs.

    Args:
        manifest: The images.
        merges: New class -> the classes that go into it (one only to rename it).

    Returns:
        The manifest with the new labels, in the same order.

    Raises:
        UserError: A class that there is not, one that goes into two, or a new name that another
            class has.
    """
    new_name: dict[str, str] = {}
    for new, members in merges.items():
        for old in members:
            if old not in manifest.class_names:
                near = difflib.get_close_matches(old, manifest.class_names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                known = ", ".join(manifest.class_names) or "none"
                raise UserError(f"no class {old!r} (the classes: {known}){hint}", setting="merge")
            if new_name.setdefault(old, new) != new:
                raise UserError(
                    f"class {old!r} goes into {new_name[old]!r} and {new!r}", setting="merge"
                )
    for new in merges:
        if new in manifest.class_names and new not in new_name:
            raise UserError(
                f"there is a class {new!r} already; list it among those that go into it,"
                " or choose another name",
                setting="merge",
            )
    return manifest.subset(
        replace(record, label=new_name.get(record.label, record.label))
        for record in manifest.records
    )
