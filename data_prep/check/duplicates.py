"""Findings about copies: the same bytes or the same looks, in two classes or two splits."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from data_prep.check.files import Examination
from data_prep.check.findings import Finding, Severity
from data_prep.manifest.groups import equal_pairs
from data_prep.manifest.identity import shares_file
from data_prep.manifest.leaks import check_leaks
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.near_duplicates import Looks, near_pairs
from data_prep.phrases import counted

_SHOWN = 10
_ACROSS_CLASSES = {
    "identical": "One of the labels is wrong: the same file cannot be of two classes.",
    "near": "They look alike at a few pixels a side, and may differ by a detail that tells the "
    "classes apart, such as a fine crack: look at them. If they do not, a label is wrong.",
}


def exact_pairs(examination: Examination) -> np.ndarray:
    """Images of equal content: each with the first of them, int64 [m, 2].

    Files have the same bytes; parts of files (pages, tiles) the same values.
    """
    return equal_pairs(examination.content)


def lookalike_pairs(examination: Examination, distance: int) -> np.ndarray:
    """Images that look the same and are not of equal content, int64 [m, 2].

    Args:
        examination: The set.
        distance: Most bits in which the perceptual hashes may differ; -1 = do not look.
    """
    usable = examination.usable()
    usable = usable[[not examination.facts[i].constant for i in usable]]
    if distance < 0 or not len(usable):
        return np.empty((0, 2), np.int64)
    looks = Looks(examination.looks.hashes[usable], examination.looks.thumbnails[usable])
    pairs = usable[near_pairs(looks, distance)]
    content = examination.content
    return pairs[[not content[i] or content[i] != content[j] for i, j in pairs.tolist()]]


def duplicate_findings(
    examination: Examination, exact: np.ndarray, near: np.ndarray
) -> Iterator[Finding]:
    """Yields the findings about copies, the worst first.

    Args:
        examination: The set.
        exact: See `exact_pairs`.
        near: See `lookalike_pairs`.
    """
    manifest = examination.manifest
    parts = any(shares_file(r.reading, r.tile) for r in manifest.records)
    what = "identical images" if parts else "identical files"
    yield from _findings(manifest, exact, "identical", what, "serious", "warning")
    yield from _findings(manifest, near, "near", "images that look alike", "warning", "note")
    yield from _torn_groups(manifest)


def _torn_groups(manifest: Manifest) -> Iterator[Finding]:
    for leak in check_leaks(manifest, contents=False):
        if leak.shared:
            yield Finding(
                f"{leak.what}_splits", "serious",
                f"{counted(leak.shared, leak.what)} of {leak.checked} in two splits",
                "Images of one group, picture or target are no independent test. Split anew: "
                "simclr-split keeps them on one side.",
                leak.shared, (leak.example,),
            )  # fmt: skip


def _findings(
    manifest: Manifest,
    pairs: np.ndarray,
    kind: str,
    what: str,
    across_classes: Severity,
    within: Severity,
) -> Iterator[Finding]:
    records = manifest.records
    sorted_out: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for i, j in pairs.tolist():
        if records[i].split != records[j].split:
            sorted_out["splits"].append((i, j))
        elif records[i].label != records[j].label:
            sorted_out["classes"].append((i, j))
        else:
            sorted_out["within"].append((i, j))
    texts: dict[str, tuple[Severity, str]] = {
        "splits": (
            "serious",
            "A model is tested on what it was trained on. Split anew: simclr-split keeps copies on "
            "one side.",
        ),
        "classes": (
            across_classes,
            _ACROSS_CLASSES[kind],
        ),
        "within": (within, "simclr-split keeps them on one side."),
    }
    for place, (severity, text) in texts.items():
        found = sorted_out[place]
        if found:
            where = "within a class" if place == "within" else f"in two {place}"
            title = f"{counted(len(found), 'pair')} of {what} {where}"
            shown = tuple(f"{records[i].name} = {records[j].name}" for i, j in found[:_SHOWN])
            yield Finding(f"{kind}_{place}", severity, title, text, len(found), shown)
