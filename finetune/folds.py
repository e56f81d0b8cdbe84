"""The same training over folds or seeds: results of every run, mean, spread, floors, warnings.

A folder of folds holds one run per fold (`fold_1`, `fold_2`, ...) or seed (`seed_0`, ...), and

    folds.json   what was trained; it is checked before the training goes on
    folds.csv    every metric of every run, all digits
    folds.html   the page
"""

import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.csv_files import write_csv
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.phrases import sentence
from data_prep.storage import AGAIN, ANEW, file_sha256, is_unused, read_object, write_text
from finetune.floors import Floors, read_floors, read_verdict
from finetune.report.files import REPORT, read_results
from finetune.report.results import SplitResults
from finetune.report.scored_split import ScoredSplit
from finetune.session import ClassifierDir
from finetune.significance import ScoredPredictions, corrected_t_test, metric_values, spread
from simclr_tf.evaluation.degenerate import mean_ends
from simclr_tf.evaluation.floors import Floor, Verdict
from simclr_tf.evaluation.intervals import Difference, Interval
from simclr_tf.training.run_warnings import (
    WARNINGS_FILE,
    latest,
    read_alarms,
    read_warnings,
)

log = logging.getLogger(__name__)

PLAN = "folds.json"
TABLE = "folds.csv"
PAGE = "folds.html"
MANIFEST = "manifest.csv"
_FLOOR_RESAMPLES = 2000

# (run, its folder) -> exit code of the training
Train = Callable[["OneRun", Path], int]


@dataclass(frozen=True)
class OneRun:
    """One training.

    Attributes:
        name: Of the run, and of its folder.
        manifest: The images with their splits.
        seed: Of the training; None = as the arguments say.
    """

    name: str
    manifest: str
    seed: int | None = None


@dataclass(frozen=True)
class FoldsPlan:
    """The trainings of a folder of folds.

    Attributes:
        command: `finetune` or `transfer`.
        arguments: Its flags, but for manifest, seed and output.
        runs: The trainings.
    """

    command: str
    arguments: tuple[str, ...]
    runs: tuple[OneRun, ...]


@dataclass(frozen=True)
class FoldResult:
    """The result of one run on the split that is compared.

    Attributes:
        name: Of the run.
        folder: Of the run.
        judged: Its labelled images, with absolute paths, their scores and predicted classes.
        measured: Their metrics with intervals over images.
        train_images: Labelled images it was trained on.
        classes: Names of the classes.
        alarms: Reasons not to trust its numbers.
        warnings: Warnings of the run, alarms included.
        floors: Scores of simpler methods on the same images; None = not known.
        floor_metric: The metric that network and floors are compared by.
    """

    name: str
    folder: Path
    judged: ScoredPredictions
    measured: SplitResults
    train_images: int
    classes: tuple[str, ...]
    alarms: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    floors: Floors | None = None
    floor_metric: str = "accuracy"

    def verdict(self) -> Verdict | None:
        """Compares the run with its floors; None where they are not known."""
        if self.floors is None or self.floors.split != self.judged.split.split:
            return None
        return self.floors.verdict(self.judged, self.floor_metric, _FLOOR_RESAMPLES, 0)


@dataclass(frozen=True)
class FoldsResult:
    """All runs.

    Attributes:
        split: That is compared: `test`, or `validation` where there is none.
        folds: In order.
    """

    split: str
    folds: tuple[FoldResult, ...]

    @property
    def shared(self) -> bool:
        """True if all runs were scored on the same images: seeds, or a sealed test split."""
        first = set(self.folds[0].judged.split.images)
        return all(set(fold.judged.split.images) == first for fold in self.folds)

    @property
    def ratio(self) -> float:
        """Test images for every training image; 0 for runs that share both."""
        sizes = [len(f.judged.split) / max(1, f.train_images) for f in self.folds]
        return 0.0 if self.shared else float(np.mean(sizes))

    def values(self, metric: str) -> np.ndarray:
        """A metric in every run, float64 [k]."""
        return np.array([fold.measured.metrics[metric].value for fold in self.folds])

    def mean_interval(self, metric: str) -> tuple[float, Interval]:
        """Deviation of a metric over the runs, and the interval of its mean.

        The interval is that of `spread`. Runs that all give the same number show no spread; theirs
        comes from the intervals over images.
        """
        values = self.values(metric)
        deviation, low, high = spread(values, self.ratio)
        if len(values) > 1 and math.isnan(low):
            known = [fold.measured.metrics[metric] for fold in self.folds]
            ends = [(interval.low, interval.high) for interval in known]
            # The same images in all runs: their errors do not average out.
            low, high = np.mean(ends, axis=0) if self.shared else mean_ends(values, ends)
        return deviation, Interval(float(values.mean()), float(low), float(high))


def manifests_of(folder: str | Path) -> tuple[OneRun, ...]:
    """The folds that `simclr-split --folds` wrote.

    Raises:
        UserError: There are none.
    """
    files = sorted(Path(folder).glob("fold_*.csv"))
    if not files:
        raise UserError(
            "holds no fold_1.csv, fold_2.csv, ...; make them with"
            " simclr-split --folds=K --output=FOLDER",
            setting="folds_dir",
            value=folder,
        )
    return tuple(OneRun(file.stem, str(file.resolve())) for file in files)


def train_folds(plan: FoldsPlan, output: Path, train: Train) -> int:
    """Trains what is not yet complete.

    Args:
        plan: The trainings.
        output: Folder of the runs; of the same plan if it is there.
        train: Trains one run.

    Returns:
        0, or the exit code of a training that was stopped.

    Raises:
        UserError: The folder holds the runs of another plan.
    """
    _keep_plan(plan, output)
    for number, run in enumerate(plan.runs, 1):
        folder = output / run.name
        if ClassifierDir(folder).is_whole():
            log.info("%s is complete", run.name)
            continue
        log.info("%s, %d of %d", run.name, number, len(plan.runs))
        code = train(run, folder)
        if code:
            return code
    return 0


def _keep_plan(plan: FoldsPlan, output: Path) -> None:
    hashes = {run.name: file_sha256(run.manifest) for run in plan.runs}
    facts = {**asdict(plan), "manifest_sha256": hashes}
    text = json.dumps(facts, indent=2) + "\n"
    file = output / PLAN
    if not file.is_file():
        if output.exists() and not is_unused(output, [output / "folds"]):
            raise UserError(
                "holds something else; give another folder", setting="output", value=output
            )
        output.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
        return
    known, wanted = _without_places(read_object(file, ANEW)), _without_places(json.loads(text))
    differing = [name for name in wanted if known.get(name) != wanted[name]]
    if differing:
        raise UserError(
            f"was begun with other {', '.join(differing)} (see {file}); give"
            " another folder, or the same flags",
            setting="output",
            value=output,
        )


def _without_places(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan without the paths of its manifests, which may be moved: their hashes identify them."""
    facts = dict(plan)
    facts["runs"] = [{**run, "manifest": ""} for run in facts["runs"]]
    return facts


def read_folds(folder: str | Path) -> FoldsResult:
    """Reads all runs of a folder of folds, or a single run as one.

    Raises:
        UserError: There are none, some are not complete, or they have no common split.
    """
    folder = Path(folder)
    if (folder / PLAN).is_file():
        names = [run["name"] for run in read_object(folder / PLAN, AGAIN)["runs"]]
        folders = {name: folder / name for name in names}
    elif (folder / REPORT).is_file():
        folders = {folder.name: folder}
    else:
        raise UserError(f"{folder}: is neither a run with a {REPORT} nor a folder of simclr-folds")
    missing = [name for name, run in folders.items() if not (run / REPORT).is_file()]
    if missing:
        raise UserError(f"{folder}: {', '.join(missing)} not complete; run simclr-folds again")
    stored = {name: read_results(run) for name, run in folders.items()}
    split = next(
        (s for s in ("test", "validation") if all(s in r.results.splits for r in stored.values())),
        None,
    )
    if split is None:
        raise UserError(f"{folder}: the runs have neither test nor validation images with labels")
    folds = []
    for name, results in stored.items():
        absolute = _absolute(results.splits[split], folders[name])
        places = dict(zip(results.splits[split].paths, absolute.paths, strict=True))
        scored = absolute.labeled()
        train = results.results.splits.get("train")
        folds.append(
            FoldResult(
                name,
                folders[name],
                ScoredPredictions(scored, results.results.decision.classes(scored.scores)),
                results.results.splits[split],
                train.images if train else 0,
                results.results.class_names,
                read_alarms(folders[name] / WARNINGS_FILE),
                tuple(map(str, latest(read_warnings(folders[name] / WARNINGS_FILE)))),
                _floors(folders[name], places),
                (read_verdict(folders[name]) or {}).get("metric", "accuracy"),
            )
        )
    return FoldsResult(split, tuple(folds))


def _absolute(split: ScoredSplit, folder: Path) -> ScoredSplit:
    """The split with the paths that the run's manifest has, which do not depend on where it ran."""
    file = folder / MANIFEST
    if not file.is_file():
        return split
    images = Manifest.load(file)
    images = images.subset(r for r in images.records if r.split == split.split)
    files = images.files()
    matches = len(files) == len(split) and all(
        path.endswith(name.lstrip("./")) for path, name in zip(files, split.paths, strict=True)
    )
    if not matches:
        return split
    return ScoredSplit(
        split.split, tuple(files), split.labels, split.scores, split.groups, split.tiles,
        split.readings,
    )  # fmt: skip


def _floors(folder: Path, places: Mapping[str, str]) -> Floors | None:
    """The floors of a run, with the paths that its scores have here."""
    floors = read_floors(folder)
    if floors is None:
        return None
    images = (image._replace(file=places.get(image.file, image.file)) for image in floors.images)
    return replace(floors, images=tuple(images))


def write_table(result: FoldsResult, path: Path) -> None:
    """Writes every metric of every run as CSV, all digits, with its floors and warnings."""
    names = list(result.folds[0].measured.metrics)
    verdicts = [fold.verdict() for fold in result.folds]
    floors = [f.name for f in verdicts[0].floors] if verdicts[0] else []
    columns = [f"floor_{name.replace(' ', '_')}" for name in floors]
    rows: list[list[object]] = [
        ["run", "split", "images", "train_images", *names, *columns, "alarms", "warnings"]
    ]
    for fold, verdict in zip(result.folds, verdicts, strict=True):
        values: Mapping[str, float] = metric_values(fold.judged)
        numbers = (repr(float(values[name])) for name in names)
        images = len(fold.judged.split)
        known = {f.name: f.metrics[verdict.metric] for f in verdict.floors} if verdict else {}
        under = (repr(known[name].value) if name in known else "" for name in floors)
        rows.append(
            [fold.name, result.split, images, fold.train_images, *numbers, *under,
             " | ".join(fold.alarms), " | ".join(fold.warnings)]
        )  # fmt: skip
    write_csv(path, rows)


def note_warnings(result: FoldsResult, output: Path) -> None:
    """Adds what the runs warned of to `folds.json`."""
    file = output / PLAN
    facts = read_object(file, ANEW)
    facts["alarms"] = {fold.name: fold.alarms for fold in result.folds if fold.alarms}
    facts["warnings"] = {fold.name: fold.warnings for fold in result.folds if fold.warnings}
    write_text(file, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def folds_verdict(result: FoldsResult) -> Verdict | None:
    """Compares the runs with their floors, by the means over the runs.

    The difference to a floor has the interval of the corrected resampled t-test over folds; for a
    single run, runs on the same images and differences without spread it is the mean of the
    intervals over images.

    Args:
        result: All runs.

    Returns:
        The verdict; None where a run has no floors.
    """
    known = [verdict for verdict in (fold.verdict() for fold in result.folds) if verdict]
    if len(known) < len(result.folds):
        return None
    metric = known[0].metric
    names = [f.name for f in known[0].floors if all(_named(v, f.name) for v in known)]
    network = np.array([verdict.network.value for verdict in known])
    floors = []
    for name in names:
        own = [floor for floor in (_named(v, name) for v in known) if floor]
        values = np.array([floor.metrics[metric].value for floor in own])
        means = {m: _mean([f.metrics[m] for f in own], result.shared) for m in own[0].metrics}
        gap = corrected_t_test(network, values, result.ratio)
        if result.shared or math.isnan(gap.low):
            mean = _mean([floor.difference for floor in own], result.shared)
            gap = Difference(mean.value, mean.low, mean.high, mean.level, math.nan)
        floors.append(Floor(name, means, gap))
    images = known[0].images if result.shared else sum(verdict.images for verdict in known)
    mean_network = _mean([verdict.network for verdict in known], result.shared)
    return Verdict(result.split, images, metric, mean_network, tuple(floors))


def _named(verdict: Verdict, name: str) -> Floor | None:
    return next((floor for floor in verdict.floors if floor.name == name), None)


def _mean(each: Sequence[Interval], shared: bool) -> Interval:
    values, ends = [i.value for i in each], [(i.low, i.high) for i in each]
    # Runs on the same images: their errors do not average out.
    low, high = np.mean(ends, axis=0) if shared else mean_ends(values, ends)
    return Interval(float(np.mean(values)), float(low), float(high))


def alarms(result: FoldsResult) -> tuple[str, ...]:
    """Reasons not to trust the numbers, a sentence each with the runs it holds for."""
    return _by_run(result.folds, [fold.alarms for fold in result.folds])


def other_warnings(result: FoldsResult) -> tuple[str, ...]:
    """The other warnings of the runs, a sentence each with the runs it holds for."""
    rest = [[t for t in fold.warnings if t not in fold.alarms] for fold in result.folds]
    return tuple(f"Warning of the runs: {text}" for text in _by_run(result.folds, rest))


def _by_run(folds: Sequence[FoldResult], texts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    runs: dict[str, list[str]] = defaultdict(list)
    for fold, own in zip(folds, texts, strict=True):
        for text in own:
            runs[text].append(fold.name)
    return tuple(
        f"{', '.join(names)}: {text}." if len(names) < len(folds) else sentence(text)
        for text, names in runs.items()
    )
