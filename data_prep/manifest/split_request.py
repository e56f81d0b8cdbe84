"""One request for splits, folds or subsets of a manifest, carried out."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from data_prep.errors import UserError
from data_prep.manifest.allocation import apportion_table
from data_prep.manifest.groups import GroupingSummary, Progress, keep_together
from data_prep.manifest.label_subsets import pool_subset
from data_prep.manifest.manifest import Manifest, canonical_split
from data_prep.manifest.splits import (
    FoldPlan,
    by_label,
    fold_names,
    make_folds,
    merge_classes,
    parse_merges,
    parse_ratios,
    stratified_split,
)
from data_prep.sections import SplitConfig

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitRequest:
    """Settings of a division into splits, folds or subsets.

    Attributes:
        ratios: Split -> share; empty = the images keep the splits they have.
        seed: Of everything that is drawn.
        folds: Folds instead of one split.
        within: Divide only the images of this split; "" = all.
        resplit: Splits that the images have may be replaced.
        subsets: Split -> share of it that is kept, after the division.
        merges: New class -> classes that go into it, last of all, so that the splits are the same
            with and without them.
    """

    ratios: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    folds: FoldPlan | None = None
    within: str = ""
    resplit: bool = False
    subsets: Mapping[str, float] = field(default_factory=dict)
    merges: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Division:
    """Images divided as settings ask for.

    Attributes:
        parts: By name: `fold_1`, ... of folds; "" of one division.
        kept: Images that were kept together.
        grouped: The images before, with what stays together as their groups.
    """

    parts: dict[str, Manifest]
    kept: GroupingSummary
    grouped: Manifest


def make_splits(
    images: Manifest,
    config: SplitConfig,
    progress: Callable[[str], Progress] = lambda what: lambda done, total: None,
) -> Division:
    """Divides images as the settings of `simclr-split` ask for.

    Args:
        images: The images.
        config: All settings; where images and outputs lie does not matter.
        progress: Makes a progress callback of the name of what is counted.

    Raises:
        UserError: Nothing or something impossible is wanted, or splits would be lost.
    """
    request, grouping = split_request(config), config.grouping
    merge_classes(images, request.merges)  # says what is wrong before the long work
    grouped, kept = keep_together(
        images,
        group_by=grouping.group_by,
        source=config.images.manifest,
        hashes=grouping.hashes,
        near_duplicates=grouping.near_duplicates,
        near_distance=grouping.near_distance,
        progress=progress,
    )
    results = divide(grouped, request)
    names = fold_names(len(results)) if request.folds else [""]
    return Division(dict(zip(names, results, strict=True)), kept, grouped)


def split_request(config: SplitConfig) -> SplitRequest:
    """The request that the settings of `simclr-split` make.

    Raises:
        UserError: Shares or classes that cannot be read.
    """
    split, f = config.split, config.folds
    ratios = parse_ratios(split.ratios) if split.ratios else {}
    subsets: dict[str, float] = {}
    for text in config.subsets.subset:
        subsets |= parse_ratios(text)
    folds = None
    if f.folds is not None:
        sealed = parse_ratios(f.sealed) if f.sealed else {}
        usual = "validation" if "test" in sealed else "test"
        folds = FoldPlan(
            f.folds,
            canonical_split(f.fold_split or usual),
            share=f.fold_share,
            sealed=sealed,
            rest=ratios or {"train": 1.0},
        )
    merges = parse_merges(config.subsets.merge)
    return SplitRequest(ratios, split.seed, folds, split.within, split.resplit, subsets, merges)


def divide(manifest: Manifest, request: SplitRequest) -> list[Manifest]:
    """Carries out a request.

    Args:
        manifest: The images, with what must stay together; see `groups.keep_together`.
        request: The division that is wanted.

    Returns:
        One manifest, or one a fold, in the order of the images.

    Raises:
        UserError: Nothing or something impossible is wanted, or splits would be lost.
    """
    results = _split(manifest, request)
    for split, share in request.subsets.items():
        results = [pool_subset(result, split, share, request.seed) for result in results]
    return [merge_classes(result, request.merges) for result in results]


def deviation_from_ratios(manifest: Manifest, ratios: Mapping[str, float]) -> tuple[int, str, str]:
    """Measures how far a split is from the exact numbers, which groups may not allow.

    Returns:
        The largest difference of a number of images, and of which class and split it is.
    """
    classes = by_label(manifest)
    wanted = apportion_table([len(rows) for rows in classes.values()], list(ratios.values()))
    count = Counter((record.label, record.split) for record in manifest.records)
    return max(
        (abs(count[label, split] - int(wanted[row, column])), label, split)
        for row, label in enumerate(classes)
        for column, split in enumerate(ratios)
    )


def _split(manifest: Manifest, request: SplitRequest) -> list[Manifest]:
    if not request.ratios and not request.folds:
        if request.within or not (manifest.splits or request.merges):
            raise UserError("give --ratios, such as train:0.6,validation:0.3,test:0.1, or --folds")
        return [manifest]
    if manifest.splits and not request.within and not request.resplit:
        raise UserError(
            f"the images have splits already ({', '.join(manifest.splits)}): leave --ratios and"
            " --folds out to keep them, divide one with --within, or replace all with --resplit"
        )
    pool = manifest.split(request.within) if request.within else manifest
    if request.folds:
        divided = make_folds(pool, request.folds, request.seed)
    else:
        divided = [stratified_split(pool, request.ratios, request.seed)]
        off, label, split = deviation_from_ratios(divided[0], request.ratios)
        if off:
            _LOGGER.info(
                "what stays together puts a number up to %d beside the exact one (%s in %s)",
                off,
                label or "no label",
                split,
            )
    if not request.within:
        return divided
    others = set(manifest.splits) - {request.within}
    clash = sorted(others.intersection(*[set(part.splits) for part in divided]))
    if clash:
        raise UserError(
            f"the images have a split {clash[0]!r} besides; name the new one otherwise",
            setting="within",
            value=request.within,
        )
    return [_put_back(manifest, part, request.within) for part in divided]


def _put_back(manifest: Manifest, part: Manifest, within: str) -> Manifest:
    """The manifest with the records of one split replaced, in their places."""
    new = iter(part.records)
    return manifest.subset(
        next(new) if record.split == within else record for record in manifest.records
    )
