"""Measures predicted depth maps, batch by batch, from the files that they were written to."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.csv_files import write_csv
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.places import place_columns
from finetune.depth.files import output_names, read_depths
from finetune.depth.metrics import (
    DepthErrors,
    ImageErrors,
    MapSums,
    image_errors,
    join_errors,
    measure,
)
from finetune.depth.pairs import case_of
from finetune.depth.pipeline import Pipeline, ReadImages, read_predictions
from finetune.depth.results import (
    ALL,
    DepthResults,
    Histograms,
    Measurement,
    compare_sites,
    shown_split,
)
from finetune.depth.router import routing
from simclr_tf.evaluation.intervals import RESAMPLES

ERRORS = "errors.csv"

_BINS = 80
_BEYOND = 0.1  # of the known range, shown at either end of the histograms


def measure_depths(
    folder: Path,
    manifest: Manifest,
    pipeline: Pipeline,
    read_targets: ReadImages,
    *,
    site_means: Mapping[str, float] | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measurement:
    """Compares the maps in a folder with what is known of the images.

    `errors.csv` is written where true maps are known: path, split, case, group, RMSE, MAE, SSIM,
    mean predicted and true depth of every such image.

    Args:
        folder: Where `predict_depths` wrote.
        manifest: The same images.
        pipeline: The pipeline that made the maps.
        read_targets: Reads the true depths of records: float32 [n, H, W, 1], in units.
        site_means: Site (the manifest's group) -> known mean depth; None = none known.
        resamples: Bootstrap samples.
        level: Of confidence.
        seed: Of the resampling.
        batch_size: Images of a batch.
        progress: Called with (images done, images in all).

    Raises:
        UserError: A true map that cannot be read, or no image of a known site.
    """
    records, splits = manifest.records, manifest.splits
    cases = tuple(case_of(record) for record in records)
    shown = shown_split(splits)
    found = _Pass(folder, manifest, pipeline, cases, shown, read_targets)
    for start in range(0, len(records), batch_size):
        found.take(range(start, min(start + batch_size, len(records))))
        progress(min(start + batch_size, len(records)), len(records))
    predictions = read_predictions(folder)
    rows = np.array([i for i, record in enumerate(records) if record.split == shown], np.int64)
    how: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
    errors = join_errors(found.errors) if found.errors else None
    with_truth = np.array(found.rows, np.int64)
    measured: dict[str, dict[str, DepthErrors]] = {}
    if errors is not None:
        _write_errors(folder, manifest, cases, with_truth, errors)
        for split in sorted({records[i].split for i in found.rows}, key=_order(shown)):
            measured[split] = _measure_split(
                split, manifest, cases, with_truth, errors, found.sums, how
            )
    sites = None
    if site_means:
        sites = compare_sites(
            predictions.mean_depth[rows],
            [records[i].group for i in rows],
            [cases[i] for i in rows],
            site_means,
            **how,
        )
    routed = None
    if pipeline.router:
        routed = routing([cases[i] for i in rows], [predictions.routed[i] for i in rows])
    scale = pipeline.scale
    results = DepthResults(
        scale.unit, scale.depth_min, scale.depth_max, measured, shown, sites, routed,
        level, resamples, seed, _remarks(manifest, with_truth, rows, shown),
    )  # fmt: skip
    histograms = Histograms(found.edges, found.predicted, found.true)
    return Measurement(results, histograms, predictions.mean_depth, rows, with_truth, errors, cases)


class _Pass:
    """One pass over the maps; keeps sums, and a few numbers of every image."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        pipeline: Pipeline,
        cases: Sequence[str],
        shown: str,
        read_targets: ReadImages,
    ) -> None:
        self._folder, self._records, self._cases = folder, manifest.records, cases
        self._names, self._shown, self._read = output_names(manifest), shown, read_targets
        scale = pipeline.scale
        self._low, self._high = scale.depth_min, scale.depth_max
        margin = _BEYOND * (self._high - self._low)
        self.edges = np.linspace(self._low - margin, self._high + margin, _BINS + 1)
        self.errors: list[ImageErrors] = []
        self.rows: list[int] = []
        self.sums: dict[tuple[str, str], MapSums] = {}
        self.predicted: dict[str, np.ndarray] = {}
        self.true: dict[str, np.ndarray] = {}

    def take(self, rows: range) -> None:
        """Looks at the images of a batch."""
        depth = read_depths(self._folder, [self._names[row] for row in rows])
        self._count(self.predicted, rows, depth)
        known = [row for row in rows if self._records[row].target]
        if not known:
            return
        true = self._read([self._records[row] for row in known])[..., 0]
        chosen = depth[[row - rows.start for row in known]]
        self.errors.append(image_errors(chosen, true, self._low, self._high))
        self.rows += known
        self._count(self.true, known, true)
        for row, one in zip(known, true, strict=True):
            for case in {ALL, self._cases[row]}:
                key = self._records[row].split, case
                self.sums.setdefault(key, MapSums()).add(one[np.newaxis])

    def _count(self, counts: dict[str, np.ndarray], rows: Sequence[int], depth: np.ndarray) -> None:
        for row, one in zip(rows, depth, strict=True):
            if self._records[row].split != self._shown:
                continue
            within = np.clip(one, self.edges[0], self.edges[-1])
            own = np.histogram(within, self.edges)[0].astype(np.int64)
            case = self._cases[row]
            counts[case] = counts.get(case, np.zeros(_BINS, np.int64)) + own


def _measure_split(
    split: str,
    manifest: Manifest,
    cases: Sequence[str],
    rows: np.ndarray,
    errors: ImageErrors,
    sums: Mapping[tuple[str, str], MapSums],
    how: Mapping[str, Any],
) -> dict[str, DepthErrors]:
    """All images of a split, then each case."""
    records = manifest.records
    names = sorted({cases[row] for row in rows} - {""})
    code = np.array([names.index(cases[row]) if cases[row] else -1 for row in rows], np.int64)
    own = np.array([records[row].split == split for row in rows])
    units = np.array([
        f"group:{records[row].group}" if records[row].group else f"path:{records[row].picture_name}"
        for row in rows
    ])  # fmt: skip

    def of(chosen: np.ndarray, case: str, strata: np.ndarray | None) -> DepthErrors:
        return measure(
            errors.take(chosen), sums[split, case].rmse, units=units[chosen], cases=strata,
            **how,
        )  # fmt: skip

    found = {ALL: of(own, ALL, code[own])}
    for position, name in enumerate(names):
        chosen = own & (code == position)
        if chosen.any():
            found[name] = of(chosen, name, None)
    return found


def _order(shown: str) -> Callable[[str], tuple[int, str]]:
    """The split that is shown first, training last."""
    return lambda split: (0 if split == shown else 2 if split == "train" else 1, split)


def _remarks(
    manifest: Manifest, with_truth: np.ndarray, rows: np.ndarray, shown: str
) -> tuple[str, ...]:
    remarks = []
    if 0 < len(with_truth) < len(manifest):
        remarks.append(
            f"The true depth of {len(with_truth)} of {len(manifest)} images is known; the others"
            " are predicted, not measured."
        )
    if shown == "train":
        remarks.append("These are images of the training split: numbers of others will be worse.")
    if not manifest.splits:
        remarks.append(
            "The images have no splits: if some of them were trained on, the numbers are too good."
        )
    elif len(rows) < len(manifest):
        remarks.append(f"What comes after the errors is of the {shown} images.")
    return tuple(remarks)


def _write_errors(
    folder: Path, manifest: Manifest, cases: Sequence[str], rows: np.ndarray, errors: ImageErrors
) -> None:
    known = ["split", "case", "group", "rmse", "mae", "ssim", "mean_predicted", "mean_true"]
    places = place_columns(manifest)
    lines: list[list[str]] = [[*places, *known]]
    columns = (
        errors.rmse, errors.absolute, errors.similarity, errors.mean_predicted, errors.mean_true,
    )  # fmt: skip
    for row, *numbers in zip(rows, *columns, strict=True):
        record = manifest.records[row]
        cells = ("" if np.isnan(number) else repr(float(number)) for number in numbers)
        where = (texts[row] for texts in places.values())
        lines.append([*where, record.split, cases[row], record.group, *cells])
    write_csv(folder / ERRORS, lines)
