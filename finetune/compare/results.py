"""From cells to the table: every metric of every row with intervals, and rows against rows."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.csv_files import write_csv
from data_prep.errors import UserError
from finetune.compare.chain import Cell, load_cell, read_cost
from finetune.compare.images import Division
from finetune.compare.recipes import encoder_folder
from finetune.compare.strategies import StrategyRow
from finetune.report.scored_split import ScoredSplit
from finetune.significance import (
    ScoredPredictions,
    corrected_t_test,
    metric_values,
    sampled_means,
)
from simclr_tf.evaluation.intervals import Difference, Interval, SampledMean, sampled_difference
from simclr_tf.evaluation.metrics import METRIC_NAMES
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.run_dir import RunDir
from simclr_tf.training.run_warnings import RunWarning, latest, read_warnings

RESAMPLES = 4000  # so that p-values are fine enough to be corrected for dozens of pairs


@dataclass(frozen=True)
class Pair:
    """Two rows with the same labels.

    Attributes:
        difference: a - b in the metric that counts, with an interval over test images and runs.
        p_holm: Its p-value, corrected for all pairs with as many labels (Holm 1979): those of
            strategies among one another, or those of strategies with floors.
        t_test: The same over runs alone; None for a single one.
    """

    difference: Difference
    p_holm: float
    t_test: Difference | None = None

    @property
    def told_apart(self) -> bool:
        """True if the difference is significant: interval without 0, and p after correction."""
        d = self.difference
        return (d.low > 0 or d.high < 0) and self.p_holm < 1 - d.level


@dataclass(frozen=True)
class Cost:
    """The cost of a row, over all its cells.

    Attributes:
        shared: Seconds of pretraining and features, which rows of one encoder share.
        fits: Seconds of the fits.
        images_unlabeled: Images shown in pretraining.
        images_labeled: Images shown in the fits.
    """

    shared: float
    fits: float
    images_unlabeled: int
    images_labeled: int

    @property
    def seconds(self) -> float:
        """All seconds of the row."""
        return self.shared + self.fits


@dataclass(frozen=True)
class ComparisonResults:
    """The table.

    Attributes:
        metric: The metric that rows are compared by.
        rows: Names, in the order that they were asked for.
        fractions: Shares of the labels, rising.
        labels: Share -> labels of a cell.
        classes: Number of classes.
        runs: Folds times seeds.
        test_images: On which all were scored.
        means: (row, share) -> metric -> mean over runs with its interval.
        pairs: (row, later row, share) -> their difference.
        costs: Row -> what it took.
        floor: Name of the row of untrained features, if there is one.
        floors: Names of the floors that no network stands behind; they are in `means`, and in
            `pairs` as the second of a strategy, but not among the rows.
        warned: Row -> warnings of its pretraining.
        unlearned: Row -> the warning that stood at the last step of its pretraining, where there
            was one: it has learnt nothing, or fallen apart.
        minutes: Budget that the sizes were planned for; 0 = none.
    """

    metric: str
    rows: tuple[str, ...]
    fractions: tuple[float, ...]
    labels: Mapping[float, int]
    classes: int
    runs: int
    test_images: int
    means: Mapping[tuple[str, float], Mapping[str, Interval]]
    pairs: Mapping[tuple[str, str, float], Pair]
    costs: Mapping[str, Cost] = field(default_factory=dict)
    floor: str = ""
    floors: tuple[str, ...] = ()
    warned: Mapping[str, tuple[RunWarning, ...]] = field(default_factory=dict)
    unlearned: Mapping[str, RunWarning] = field(default_factory=dict)
    minutes: float = 0.0

    @property
    def shown(self) -> tuple[str, ...]:
        """Rows and floors."""
        return (*self.rows, *self.floors)

    def value(self, row: str, fraction: float) -> Interval:
        """A row's mean in the metric that counts."""
        return self.means[row, fraction][self.metric]

    def pair(self, a: str, b: str, fraction: float) -> Pair:
        """A against b, in either order."""
        if (a, b, fraction) in self.pairs:
            return self.pairs[a, b, fraction]
        pair = self.pairs[b, a, fraction]
        turned = (_turned(d) if d else None for d in (pair.difference, pair.t_test))
        difference, t_test = turned
        assert difference is not None
        return Pair(difference, pair.p_holm, t_test)


def _turned(d: Difference) -> Difference:
    return Difference(-d.value, -d.high, -d.low, d.level, d.p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, as Holm (1979) does; nan counts as 1."""
    known = np.nan_to_num(np.asarray(p_values, np.float64), nan=1.0)
    order = np.argsort(known, kind="stable")
    factors = len(known) - np.arange(len(known))
    corrected = np.empty(len(known))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(known[order] * factors))
    return corrected.tolist()


def collect(
    rows: Sequence[StrategyRow],
    division: Division,
    output: Path,
    metric: str,
    seed: int,
    minutes: float = 0.0,
) -> ComparisonResults:
    """Reads all cells and compares them.

    Args:
        rows: The rows that were run, floors included.
        division: Images and labels.
        output: Folder of the comparison.
        metric: The metric that rows are compared by.
        seed: Of the resampling.
        minutes: Budget of the comparison; 0 = none.

    Raises:
        UserError: Some cells have not been done.
    """
    cells = _cells(rows, division, output)
    judged = {key: [_judged(cell, division) for cell in own] for key, own in cells.items()}
    sampled = {
        key: sampled_means(runs, RESAMPLES, seed, resample_runs=True)
        for key, runs in judged.items()
    }
    means = {
        key: {name: known.interval() for name, known in own.items()} for key, own in sampled.items()
    }
    by_run = {
        key: np.array([metric_values(run)[metric] for run in runs]) for key, runs in judged.items()
    }
    names = tuple(row.name for row in rows if not row.encoder.is_floor)
    floors = tuple(row.name for row in rows if row.encoder.is_floor)
    fractions = division.fractions
    pairs: dict[tuple[str, str, float], Pair] = {}
    for fraction in fractions:
        known = {name: sampled[name, fraction][metric] for name in (*names, *floors)}
        runs = {name: by_run[name, fraction] for name in known}
        # Two questions, each with a correction of its own: floors cost no strategy its lead.
        pairs |= _pairs(known, runs, fraction, itertools.combinations(names, 2))
        pairs |= _pairs(known, runs, fraction, itertools.product(names, floors))
    first = rows[0].name
    warned = {row.name: _warnings(row, output) for row in rows}
    return ComparisonResults(
        metric,
        names,
        fractions,
        {fraction: division.labels(fraction) for fraction in fractions},
        len(division.class_names),
        len(cells[first, fractions[0]]),
        len(division.test_rows),
        means,
        pairs,
        {row.name: _cost(row, cells, division, output) for row in rows},
        next((r.name for r in rows if r.encoder.random and r.head == "probe"), ""),
        floors,
        {name: said for name, said in warned.items() if said},
        {row.name: said for row in rows if (said := _last_word(row, warned[row.name], output))},
        minutes,
    )


def _warnings(row: StrategyRow, output: Path) -> tuple[RunWarning, ...]:
    """The warnings of a row's pretraining: the last of each kind, in order."""
    if not row.encoder.method:
        return ()
    return latest(read_warnings(RunDir(encoder_folder(output, row.encoder)).warnings_file))


def _last_word(row: StrategyRow, warned: Sequence[RunWarning], output: Path) -> RunWarning | None:
    """The warning of the health watch at the last step of a pretraining; None if it was silent."""
    if not any(w.kind for w in warned):
        return None
    steps = read_metrics(RunDir(encoder_folder(output, row.encoder)).metrics_file)["step"]
    at_the_end = (w for w in warned if w.kind and w.step == steps[-1])
    return next(at_the_end, None)


def _pairs(
    sampled: Mapping[str, SampledMean],
    by_run: Mapping[str, np.ndarray],
    fraction: float,
    asked: Iterable[tuple[str, str]],
) -> dict[tuple[str, str, float], Pair]:
    found = {(a, b): sampled_difference(sampled[a], sampled[b]) for a, b in asked}
    corrected = holm([d.p_value for d in found.values()])
    return {
        (a, b, fraction): Pair(
            d,
            p,
            # All runs have the same test images: nothing to correct the variance for.
            corrected_t_test(by_run[a], by_run[b], 0.0) if len(by_run[a]) > 1 else None,
        )
        for ((a, b), d), p in zip(found.items(), corrected, strict=True)
    }


def _cells(
    rows: Sequence[StrategyRow], division: Division, output: Path
) -> dict[tuple[str, float], list[Cell]]:
    cells: dict[tuple[str, float], list[Cell]] = {}
    missing = 0
    for row, drawn in itertools.product(rows, division.label_sets):
        cell = load_cell(output, row, drawn)
        if cell is None:
            missing += 1
        else:
            cells.setdefault((row.name, drawn.fraction), []).append(cell)
    if missing:
        raise UserError(f"{output}: {missing} fits have not been done; run the same command again")
    return cells


def _judged(cell: Cell, division: Division) -> ScoredPredictions:
    split = ScoredSplit.from_manifest(
        "test", division.test, division.class_names, cell.probabilities
    )
    return ScoredPredictions(split, split.scores.argmax(axis=1))


def _cost(
    row: StrategyRow,
    cells: Mapping[tuple[str, float], list[Cell]],
    division: Division,
    output: Path,
) -> Cost:
    own = [cell for fraction in division.fractions for cell in cells[row.name, fraction]]
    shared, seen = read_cost(output, f"pretrain-{row.encoder.slug}")
    if row.head == "probe":
        names = [row.encoder.slug]
        if row.encoder.random:
            seeds = {known.seed for known in division.label_sets}
            names = [f"{row.encoder.slug}_seed_{seed}" for seed in seeds]
        shared += sum(read_cost(output, f"features-{name}")[0] for name in names)
    return Cost(shared, sum(c.seconds for c in own), seen, sum(c.images_seen for c in own))


def write_tables(
    results: ComparisonResults, rows: Sequence[StrategyRow], division: Division, output: Path
) -> None:
    """Writes `results.csv` (one line per fit), `summary.csv`, `comparisons.csv` and `costs.csv`."""
    write_csv(output / "results.csv", _result_lines(rows, division, output))
    write_csv(output / "summary.csv", _summary_lines(results))
    write_csv(output / "comparisons.csv", _pair_lines(results))
    costs = [["strategy", "shared_seconds", "fit_seconds", "images_unlabelled", "images_labelled"]]
    for name, cost in results.costs.items():
        seconds = (f"{cost.shared:.1f}", f"{cost.fits:.1f}")
        costs.append([name, *seconds, str(cost.images_unlabeled), str(cost.images_labeled)])
    write_csv(output / "costs.csv", costs)


def _result_lines(
    rows: Sequence[StrategyRow], division: Division, output: Path
) -> Iterator[Sequence[Any]]:
    yield ["strategy", "head", "fraction", "labels", "fold", "seed", "steps", *METRIC_NAMES]
    for row, drawn in itertools.product(rows, division.label_sets):
        cell = load_cell(output, row, drawn)
        assert cell is not None
        values = metric_values(_judged(cell, division))
        numbers = (repr(float(values[name])) for name in METRIC_NAMES)
        head = "distilled" if row.distill else row.head
        yield [row.name, head, f"{drawn.fraction:g}", cell.labels, cell.fold, cell.seed,
               cell.steps, *numbers]  # fmt: skip


def _summary_lines(results: ComparisonResults) -> Iterator[Sequence[Any]]:
    yield ["strategy", "fraction", "labels", "metric", "mean", "low", "high"]
    for name, fraction in itertools.product(results.shown, results.fractions):
        for metric, i in results.means[name, fraction].items():
            numbers = (repr(float(v)) for v in (i.value, i.low, i.high))
            yield [name, f"{fraction:g}", results.labels[fraction], metric, *numbers]


def _pair_lines(results: ComparisonResults) -> Iterator[Sequence[Any]]:
    yield [
        "strategy", "other", "fraction", "labels", "metric", "difference", "low", "high", "p",
        "p_holm", "t_low", "t_high", "t_p", "told_apart",
    ]  # fmt: skip
    for (a, b, fraction), pair in results.pairs.items():
        d, t = pair.difference, pair.t_test
        over_runs = (t.low, t.high, t.p_value) if t else (np.nan,) * 3
        numbers = (d.value, d.low, d.high, d.p_value, pair.p_holm, *over_runs)
        yield [a, b, f"{fraction:g}", results.labels[fraction], results.metric,
               *(repr(float(n)) for n in numbers), "yes" if pair.told_apart else "no"]  # fmt: skip
