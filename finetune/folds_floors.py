"""What the runs of a folder of folds have in common: warnings, and floors under all of them."""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from finetune.folds import FoldResult, FoldsResult
from finetune.significance import corrected_t_test
from simclr_tf.evaluation.degenerate import mean_ends
from simclr_tf.evaluation.floors import Floor, Verdict
from simclr_tf.evaluation.intervals import Difference, Interval
from simclr_tf.training.run_warnings import sentence


def folds_verdict(result: FoldsResult) -> Verdict | None:
    """Whether the runs are above their floors, by the means over the runs.

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
    """Why the numbers cannot be trusted, a sentence for each reason with the runs it holds for."""
    return _by_run(result.folds, [fold.alarms for fold in result.folds])


def other_warnings(result: FoldsResult) -> tuple[str, ...]:
    """What else the runs warned of, likewise."""
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
