"""Everything that was measured of predicted depth maps, and `metrics.json`."""

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.storage import write_text
from finetune.depth.metrics import ImageErrors, Measured
from finetune.depth.router import Routing
from finetune.depth.sites import SiteErrors
from simclr_tf.evaluation.intervals import Interval

METRICS = "metrics.json"
ALL = ""
"""Stands for all cases, and for the images of a manifest without splits."""

_KEPT = ("test", "validation")


@dataclass(frozen=True)
class Histograms:
    """How often depths occur, by case.

    Attributes:
        edges: float64 [b + 1], of the bins, in units of depth; what lies beyond is in the end bins.
        predicted: case -> int64 [b], pixels.
        true: case -> int64 [b]; empty where no true depth is known.
    """

    edges: np.ndarray
    predicted: dict[str, np.ndarray]
    true: dict[str, np.ndarray]


@dataclass(frozen=True)
class DepthResults:
    """The numbers.

    Attributes:
        unit: of depth; empty = not known.
        depth_min: of the known range, to which SSIM is relative.
        depth_max: its upper end.
        splits: split -> case -> errors; the case `ALL` is all images of the split. Empty where no
            true depth is known.
        shown: the split that sites, routes, histograms and pictures are of.
        sites: mean depths against those known of sites; None where none is known.
        routing: None without a router, or where no case is known.
        level: of confidence.
        resamples: bootstrap samples behind the intervals.
        seed: of the resampling.
        remarks: what a reader must know, sentences.
    """

    unit: str
    depth_min: float
    depth_max: float
    splits: dict[str, dict[str, Measured]]
    shown: str
    sites: SiteErrors | None
    routing: Routing | None
    level: float
    resamples: int
    seed: int
    remarks: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing could be measured."""
        return not (self.splits or self.sites or self.routing)

    def to_json(self) -> dict[str, Any]:
        """The numbers as JSON holds them; undefined ones are None."""
        return {
            "unit": self.unit,
            "depth_range": [self.depth_min, self.depth_max],
            "intervals": {
                "level": self.level,
                "resamples": self.resamples,
                "seed": self.seed,
                "method": "percentile bootstrap; units are drawn within their case",
            },
            "splits": {
                split or "all images": {
                    "all": _numbers(cases[ALL]),
                    "cases": {case: _numbers(m) for case, m in cases.items() if case != ALL},
                }
                for split, cases in self.splits.items()
            },
            "sites": None if self.sites is None else _sites(self.sites),
            "routing": None if self.routing is None else _routing(self.routing),
            "remarks": list(self.remarks),
        }

    def table(self) -> str:
        """The errors of every split and case as aligned text; empty where none are known."""
        if not self.splits:
            return ""
        rows = [("split", "case", "images", "RMSE", "MAE", "SSIM", "constant", "one map", "skill")]
        for split, cases in self.splits.items():
            for case, m in cases.items():
                numbers = (
                    f"{m.rmse:.2f}",
                    f"{m.mae:.2f}",
                    f"{m.ssim:.3f}",
                    f"{m.constant_rmse:.2f}",
                    f"{m.map_rmse:.2f}",
                    f"{m.skill:.3f}",
                )
                rows.append((split or "-", case or "all", str(m.images), *numbers))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )  # fmt: skip

    def save(self, folder: Path) -> None:
        """Writes `metrics.json`."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        write_text(folder / METRICS, text + "\n")


@dataclass(frozen=True)
class Measurement:
    """The numbers and what pictures are made from; rows are positions in the manifest.

    Attributes:
        results: the numbers.
        histograms: of the depths of the split that is shown.
        mean_depth: float64 [n], mean predicted depth of every image.
        rows: int64 [m], the images of the split that is shown.
        with_truth: int64 [k], images of any split whose true depth is known.
        errors: theirs; None where none is known.
        cases: [n], the true ones; "" = not known.
    """

    results: DepthResults
    histograms: Histograms
    mean_depth: np.ndarray
    rows: np.ndarray
    with_truth: np.ndarray
    errors: ImageErrors | None
    cases: tuple[str, ...]


def shown_split(splits: tuple[str, ...]) -> str:
    """The split whose images are shown: test if it is there; `ALL` where there are none."""
    return next((name for name in _KEPT if name in splits), splits[-1] if splits else ALL)


def _numbers(measured: Measured) -> dict[str, Any]:
    return {field.name: _json(getattr(measured, field.name)) for field in fields(measured)}


def _sites(errors: SiteErrors) -> dict[str, Any]:
    numbers = {f.name: _json(getattr(errors, f.name)) for f in fields(errors) if f.name != "sites"}
    listed = [
        {"site": s.name, "case": s.case, "images": s.images, "known": s.known,
         "predicted": s.predicted}
        for s in errors.sites
    ]  # fmt: skip
    return {"number": len(errors.sites), **numbers, "sites": listed}


def _routing(routing: Routing) -> dict[str, Any]:
    return {
        "accuracy": routing.accuracy.to_json(),
        "cases": list(routing.names),
        "confusion_matrix": routing.confusion.tolist(),
    }


def _json(value: Any) -> Any:
    if isinstance(value, Interval):
        return value.to_json()
    return None if isinstance(value, float) and math.isnan(value) else value
