"""The whole check of a set of images."""

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from data_prep.check.duplicates import duplicate_findings, exact_pairs, lookalike_pairs
from data_prep.check.files import Examination, Progress, examine, file_findings
from data_prep.check.findings import SEVERITIES, Finding, by_severity, to_json
from data_prep.check.labels import label_findings
from data_prep.check.names import name_findings
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.near_duplicates import NEAR_DISTANCE
from data_prep.manifest.scan import LeftOut


@dataclass(frozen=True, eq=False)
class CheckResult:
    """A set and the findings about it.

    Attributes:
        examination: The set.
        near: Pairs of near duplicates, int64 [m, 2].
        findings: The worst first.
    """

    examination: Examination
    near: np.ndarray
    findings: tuple[Finding, ...]

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The file of every image."""
        return tuple(self.examination.manifest.files())

    def worst(self) -> str:
        """`serious`, `warning`, `note`, or empty if there is nothing to say."""
        return next((s for s in SEVERITIES if any(f.severity == s for f in self.findings)), "")

    def to_json(self) -> str:
        """Counts and findings, for scripts."""
        return json.dumps(
            {**self.counts(), "findings": to_json(self.findings)}, indent=1, ensure_ascii=False
        )

    def counts(self) -> dict[str, Any]:
        """Counts the images of each class, split, format, mode and size."""
        manifest = self.examination.manifest
        facts = [f for f in self.examination.facts if not f.problem]
        sizes = [f.size for f in self.examination.facts]
        table: dict[str, dict[str, int]] = {}
        for record in manifest.records:
            row = table.setdefault(record.label or "no label", {})
            row[record.split or "no split"] = row.get(record.split or "no split", 0) + 1
        return {
            "images": len(manifest),
            "readable": len(facts),
            "bytes": sum(dict(zip(self.files, sizes, strict=True)).values()),
            "classes": table,
            "formats": _counted(f.format for f in facts),
            "modes": _counted(_mode(f.channels, f.bits) for f in facts),
            "sizes": _counted(f"{f.width}x{f.height}" for f in facts),
        }


def check(
    manifest: Manifest,
    *,
    near_distance: int = NEAR_DISTANCE,
    seed: int = 0,
    left_out: LeftOut | None = None,
    progress: Progress = lambda done, total: None,
) -> CheckResult:
    """Reads every image and looks for faults that would spoil the numbers of a model.

    Args:
        manifest: The images; they need not be readable.
        near_distance: Most bits of 64 in which the hashes of near duplicates differ; -1 = do not
            look for them.
        seed: Of the test for features of the file that tell the class.
        left_out: What the scan of a folder did not take.
        progress: Called with (files done, files in all).
    """
    examination = examine(manifest, progress)
    exact = exact_pairs(examination)
    near = lookalike_pairs(examination, near_distance)
    findings = [
        *file_findings(examination),
        *duplicate_findings(examination, exact, near),
        *label_findings(examination, seed),
        *name_findings(manifest, left_out),
    ]
    return CheckResult(examination, near, tuple(by_severity(findings)))


def _mode(channels: int, bits: int) -> str:
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels} bands")
    return f"{kind}, {bits} bit"


def _counted(values: Any) -> dict[str, int]:
    return dict(Counter(values).most_common())
