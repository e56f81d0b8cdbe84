"""The pages of `simclr-folds`: all runs with mean and spread, and two models side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.errors import UserError
from data_prep.page import Page, Section, Table, repeat_section, write_page
from data_prep.phrases import counted
from finetune.folds import FoldsPlan, FoldsResult, alarms, folds_verdict, other_warnings
from finetune.report.sections import WORDS
from finetune.significance import ScoredPredictions, corrected_t_test, paired_bootstrap, same_images
from simclr_tf.evaluation.figures import accuracy_bars, figure_picture
from simclr_tf.evaluation.floors import FloorVerdict, floor_section
from simclr_tf.evaluation.intervals import Difference, Interval

_RESAMPLES = 2000
_MOVED = (
    "The images of the two lie in different folders; those of the same path below the folder that"
    " holds all of them were taken for the same."
)


@dataclass(frozen=True)
class FoldsComparison:
    """The result of a comparison of two models.

    Attributes:
        split: On which both were scored.
        means: Metric -> (a, b), means over the runs.
        t_test: Metric -> the difference over folds by the corrected resampled t-test; empty for
            single runs.
        bootstrap: Metric -> the difference over images by the paired bootstrap; empty if the folds
            have different test images.
        remarks: Caveats for readers, sentences.
        cautions: Of each model: why its numbers cannot be trusted, whether it is above simpler
            methods, and what its runs warned of, sentences.
    """

    split: str
    means: dict[str, tuple[float, float]]
    t_test: dict[str, Difference]
    bootstrap: dict[str, Difference]
    remarks: tuple[str, ...]
    cautions: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


def compare(a: FoldsResult, b: FoldsResult, *, seed: int = 0) -> FoldsComparison:
    """Compares run with run.

    Args:
        a: One model's runs.
        b: The other's, as many, on the same images.
        seed: Of the bootstrap.

    Raises:
        UserError: Their runs, images, labels or classes are not the same.
    """
    if a.split != b.split or len(a.folds) != len(b.folds):
        raise UserError(
            f"one has {len(a.folds)} runs scored on {a.split}, the other"
            f" {len(b.folds)} on {b.split}; only the same folds can be compared",
            setting="compare",
        )
    pairs, moved = [], False
    for one, other in zip(a.folds, b.folds, strict=True):
        what = one.name if one.name == other.name else f"{one.name} and {other.name}"
        if one.classes != other.classes:
            raise UserError(f"{what} know different classes", setting="compare")
        pairs.append(same_images(one.judged, other.judged, what))
        moved |= set(one.judged.split.images) != set(other.judged.split.images)
    metrics = list(a.folds[0].measured.metrics)
    means = {n: (float(a.values(n).mean()), float(b.values(n).mean())) for n in metrics}
    t_test, bootstrap = {}, {}
    remarks = [_MOVED] if moved else []
    if len(pairs) > 1:
        ratio = (a.ratio + b.ratio) / 2
        t_test = {n: corrected_t_test(a.values(n), b.values(n), ratio) for n in metrics}
        remarks.append(_about_t_test(ratio))
    if a.shared:
        bootstrap = _bootstrap(pairs, seed)
        remarks.append(
            f"Paired bootstrap: {_RESAMPLES} samples of the {len(pairs[0][0].split)} {a.split}"
            " images, the same for both; groups and tiles of one picture are drawn together."
        )
    cautions = (_cautions(a), _cautions(b))
    return FoldsComparison(a.split, means, t_test, bootstrap, tuple(remarks), cautions)


def _cautions(result: FoldsResult) -> tuple[str, ...]:
    verdict = folds_verdict(result)
    floors = (verdict.sentence(),) if verdict else ()
    return (*alarms(result), *floors, *other_warnings(result))


def _bootstrap(
    pairs: list[tuple[ScoredPredictions, ScoredPredictions]], seed: int
) -> dict[str, Difference]:
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    return paired_bootstrap(first, second, resamples=_RESAMPLES, seed=seed)


def _about_t_test(ratio: float) -> str:
    if not np.isclose(ratio, 0):
        return (
            "Folds share training images: the variance of the t-test is widened by"
            f" {ratio:.3f}, the test images for every training image (Nadeau and Bengio 2003)."
        )
    return (
        "All runs have the same test images: the t-test tells what other seeds or training images"
        " would change, the bootstrap what other test images would."
    )


METRICS = (
    "accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "cohen_kappa", "roc_auc",
    "average_precision", "log_loss",
)  # fmt: skip


_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "average_precision", "log_loss")


def fold_table(result: FoldsResult, metrics: Sequence[str] = _SHOWN) -> Table:
    """One row per run, then mean, standard deviation and the corrected interval of the mean."""
    folds = result.folds
    rows = [
        (
            fold.name,
            f"{len(fold.judged.split)}",
            f"{fold.train_images}",
            *(f"{fold.measured.metrics[name].value:.3f}" for name in metrics),
        )
        for fold in folds
    ]
    highlight: tuple[int, ...] = ()
    if len(folds) > 1:
        found = [result.mean_interval(name) for name in metrics]
        highlight = (len(rows),)
        rows.append(("mean", "", "", *(f"{mean.value:.3f}" for _, mean in found)))
        rows.append(("deviation", "", "", *(f"{deviation:.3f}" for deviation, _ in found)))
        rows.append(("95 % from", "", "", *(f"{mean.low:.3f}" for _, mean in found)))
        rows.append(("95 % to", "", "", *(f"{mean.high:.3f}" for _, mean in found)))
    return Table(
        ("run", f"{result.split}\nimages", "train\nimages", *(WORDS[name] for name in metrics)),
        tuple(rows),
        f"Metrics on {result.split}",
        highlight,
        _note(result),
    )


def _note(result: FoldsResult) -> str:
    if len(result.folds) < 2:
        return ""
    if result.shared:
        return (
            "Standard deviation over runs (of k - 1), and Student's interval of their mean. All"
            f" runs have the same {result.split} images: what other images would give is in the"
            " intervals below."
        )
    return (
        "Standard deviation over folds (of k - 1). The interval of the mean is Student's with the"
        f" variance widened by {result.ratio:.3f}, the {result.split} images for every training"
        " image, because folds share training images (Nadeau and Bengio 2003)."
    )


def headline(result: FoldsResult) -> str:
    """The result in a sentence."""
    words = []
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"):
        deviation, mean = result.mean_interval(name)
        ends = f"[{mean.low:.3f}, {mean.high:.3f}]"
        interval = "" if math.isnan(mean.low) else f" ± {deviation:.3f} {ends}"
        words.append(f"{WORDS[name]} {mean.value:.3f}{interval}")
    return (
        f"Mean ± standard deviation over {counted(len(result.folds), 'run')} on {result.split}, in"
        f" brackets the 95 % interval of the mean: {', '.join(words)}."
    )


def write_folds_page(result: FoldsResult, plan: FoldsPlan, command: Sequence[str], path: Path
) -> None:  # fmt: skip
    """Writes the page of a folder of folds."""
    bars: dict[str, Interval] = {f.name: f.measured.metrics["accuracy"] for f in result.folds}
    most = max(max(f.measured.support) / f.measured.images for f in result.folds)
    picture = figure_picture(
        accuracy_bars(bars, chance=most),
        f"Accuracy on {result.split} with 95 % intervals over its images; the dashed line is"
        " always saying the most frequent class.",
        dpi=160,
    )
    reports = tuple(
        (fold.name, f"{fold.name}/report.html", f"{fold.measured.metrics['accuracy']:.3f}")
        for fold in result.folds
    )
    of_runs = Table(("run", "its report", "accuracy with interval over images"), reports)
    verdict = folds_verdict(result)
    trained = (f"simclr-{plan.command}", *plan.arguments)
    page = Page(
        title=f"{counted(len(result.folds), 'run')} of simclr-{plan.command}",
        summary=(
            *alarms(result),
            *([verdict.sentence()] if verdict else []),
            headline(result),
            *other_warnings(result),
        ),
        sections=(
            Section("Runs", tables=(fold_table(result),), pictures=(picture,)),
            *([floor_section(FloorVerdict(verdict))] if verdict else []),
            Section(
                "Reports",
                text=("Every run has a report of its own. Numbers of all metrics: folds.csv.",),
                tables=(of_runs,),
            ),
            repeat_section(
                command,
                trained,
                text=("All of it; and what every run trains, but for manifest and output.",),
            ),
        ),
    )
    write_page(page, path)


def compare_table(found: FoldsComparison, names: tuple[str, str]) -> Table:
    """One row per metric: both models, their difference, and the tests."""
    tests = {"t-test": found.t_test, "bootstrap": found.bootstrap}
    used = {what: test for what, test in tests.items() if test}
    rows = []
    for metric in METRICS:
        a, b = found.means[metric]
        cells = [WORDS[metric], f"{a:.3f}", f"{b:.3f}", f"{a - b:+.3f}"]
        for test in used.values():
            cells += [_interval(test[metric]), _p_value(test[metric])]
        rows.append(tuple(cells))
    heads = (cell for what in used for cell in (f"95 %\n{what}", f"p\n{what}"))
    return Table(
        ("metric", *names, "difference", *heads),
        tuple(rows),
        f"Metrics on {found.split}, means over runs",
        note="One test a row and none corrected for their number: decide on one metric before"
        " looking.",
    )


def write_compare_page(
    found: FoldsComparison, names: tuple[str, str], command: Sequence[str], path: Path
) -> None:
    """Writes the page of a comparison."""
    said = tuple(
        f"{name}: {text}" for name, own in zip(names, found.cautions, strict=True) for text in own
    )
    test = found.t_test or found.bootstrap
    by = "corrected resampled t-test" if found.t_test else "paired bootstrap"
    summary: tuple[str, ...] = ()
    if test:
        d = test["accuracy"]
        summary = (
            f"Accuracy on {found.split}: {names[0]} {found.means['accuracy'][0]:.3f}, {names[1]}"
            f" {found.means['accuracy'][1]:.3f}; difference {d.value:+.3f}, 95 % interval"
            f" {_interval(d)}, p = {_p_value(d)} ({by}).",
        )
    page = Page(
        title=f"{names[0]} and {names[1]}",
        summary=(*said, *summary),
        sections=(
            Section("Comparison", text=found.remarks, tables=(compare_table(found, names),)),
            repeat_section(command),
        ),
    )
    write_page(page, path)


def _interval(difference: Difference) -> str:
    if math.isnan(difference.low):
        return "–"
    return f"{difference.low:+.3f} to {difference.high:+.3f}"


def _p_value(difference: Difference) -> str:
    if math.isnan(difference.p_value):
        return "–"
    return f"{difference.p_value:.3f}" if difference.p_value >= 0.001 else "< 0.001"
