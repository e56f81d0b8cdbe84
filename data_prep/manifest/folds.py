"""Folds for cross-validation: one manifest a fold, each of all the images in the same order."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.splits import generator, stratified_split
from data_prep.new_folder import new_folder

_REST = "the rest"


@dataclass(frozen=True)
class FoldPlan:
    """What the folds of one cross-validation look like.

    Attributes:
        count: Number of folds.
        split: The split that goes round: its parts of the folds share no image.
        share: Its share of all images in each fold; None = everything that is not sealed, so that
            every such image is in this split exactly once.
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
        raise UserError(f"--folds={plan.count}: must be 2 or more")
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
