"""Results of predicted depth maps: errors by split and case, mean depths of sites, `metrics.json`.

For real microscope images no depth map is known, only the mean depth of each site over all of its
images.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.csv_files import read_csv
from data_prep.errors import UserError
from data_prep.storage import write_text
from finetune.depth.metrics import DepthErrors, ImageErrors, sample_intervals
from finetune.depth.router import Routing
from simclr_tf.evaluation.intervals import RESAMPLES, Interval

_COLUMNS = ("site", "mean_depth")


@dataclass(frozen=True)
class SiteDepth:
    """One site and what was predicted of it.

    Attributes:
        name: of the site.
        case: its case; empty = not known.
        images: how many of its images were predicted.
        known: its known mean depth.
        predicted: mean of the predicted mean depths of its images.
    """

    name: str
    case: str
    images: int
    known: float
    predicted: float


@dataclass(frozen=True)
class SiteErrors:
    """Errors of predicted mean depths against those known of sites, in units of depth.

    Attributes:
        sites: in the order of their first image.
        rmse: root mean squared error of the sites' mean depths.
        mae: their mean absolute error.
        bias: mean of predicted less known.
        correlation: of predicted and known means (Pearson); nan where one of them is constant.
        constant_rmse: error of the one depth that is best for all sites, the mean of the known.
        skill: 1 - `rmse` / `constant_rmse`; nan where all sites have one depth.
        image_rmse: the same as `rmse` for the mean depth of every single image against that of its
            site; it holds the spread of the images of a site as well.
    """

    sites: tuple[SiteDepth, ...]
    rmse: Interval
    mae: Interval
    bias: Interval
    correlation: Interval
    constant_rmse: float
    skill: Interval
    image_rmse: float


def read_site_means(path: str | os.PathLike[str]) -> dict[str, float]:
    """Reads a CSV with the columns `site` and `mean_depth`; others are ignored.

    Returns:
        Site -> mean depth.

    Raises:
        UserError: No such file, another format, a site given twice, or a depth that is no number.
    """
    table = read_csv(path, _COLUMNS, source=f"--site_means={path}")
    sites, depths = (table.texts(name) for name in _COLUMNS)
    if sites is None or depths is None:
        raise UserError(
            f"needs the columns {' and '.join(_COLUMNS)}", setting="site_means", value=path
        )
    means: dict[str, float] = {}
    for row, (site, depth) in enumerate(zip(sites, depths, strict=True)):
        if site in means:
            raise UserError(f"{table.place(row)}: the site {site!r} is given twice")
        means[site] = _number(depth, table.place(row))
    return means


def compare_sites(
    mean_depths: np.ndarray,
    sites: Sequence[str],
    cases: Sequence[str],
    known: Mapping[str, float],
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> SiteErrors:
    """Compares predicted mean depths with the known ones, site by site.

    Args:
        mean_depths: float [n], of every predicted map.
        sites: [n], of which site each image is; images of a site that is not known, or of none,
            are left out.
        cases: [n], the cases; "" = not known.
        known: Site -> mean depth.
        resamples: Bootstrap samples of sites.
        level: Of confidence.
        seed: Of the resampling.

    Raises:
        UserError: No image is of a known site.
    """
    rows: dict[str, list[int]] = {}
    for row, site in enumerate(sites):
        if site in known:
            rows.setdefault(site, []).append(row)
    if not rows:
        example = next(iter(known), "none")
        raise UserError(
            "no image is of a site whose mean depth is known: the manifest's column group must name"
            f" the site, such as {example!r}"
        )
    found = tuple(
        SiteDepth(name, cases[own[0]], len(own), known[name], float(np.mean(mean_depths[own])))
        for name, own in rows.items()
    )
    predicted = np.array([site.predicted for site in found])
    true = np.array([site.known for site in found])
    intervals = sample_intervals(
        lambda counts: _of_samples(predicted, true, counts),
        len(found),
        resamples=resamples,
        level=level,
        seed=seed,
    )
    errors = np.concatenate([mean_depths[own] - known[name] for name, own in rows.items()])
    return SiteErrors(
        sites=found,
        constant_rmse=float(true.std()),
        image_rmse=float(np.sqrt((errors**2).mean())),
        **intervals,
    )


def _of_samples(
    predicted: np.ndarray, true: np.ndarray, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """The numbers, [b] each, of samples given as counts [b, s] of the sites in them."""

    def mean(values: np.ndarray) -> np.ndarray:
        return (counts * values).sum(axis=1) / counts.sum(axis=1)

    error = predicted - true
    # Centred first: of numbers near 150 the difference of large squares would be left.
    p, t = predicted - predicted.mean(), true - true.mean()
    spread_p, spread_t = mean(p**2) - mean(p) ** 2, mean(t**2) - mean(t) ** 2
    product = np.sqrt(np.maximum(spread_p * spread_t, 0))
    rmse, constant = np.sqrt(mean(error**2)), np.sqrt(np.maximum(spread_t, 0))
    nothing = np.full(len(counts), np.nan)
    tiny = 1e-12 * max(1.0, float(np.abs(true).max()))
    return {
        "rmse": rmse,
        "mae": mean(np.abs(error)),
        "bias": mean(error),
        "correlation": np.divide(
            mean(p * t) - mean(p) * mean(t), product, out=nothing.copy(), where=product > tiny
        ),
        "skill": 1 - np.divide(rmse, constant, out=nothing.copy(), where=constant > tiny),
    }


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{place}: mean_depth is {text!r}, which is no number")
    return value


METRICS = "metrics.json"
ALL = ""
"""Stands for all cases, and for the images of a manifest without splits."""

_KEPT = ("test", "validation")


@dataclass(frozen=True)
class Histograms:
    """Histograms of depths, by case.

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
        remarks: caveats for readers, sentences.
    """

    unit: str
    depth_min: float
    depth_max: float
    splits: dict[str, dict[str, DepthErrors]]
    shown: str
    sites: SiteErrors | None
    routing: Routing | None
    level: float
    resamples: int
    seed: int
    remarks: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """True if nothing could be measured."""
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


def _numbers(measured: DepthErrors) -> dict[str, Any]:
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
