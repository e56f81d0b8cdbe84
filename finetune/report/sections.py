"""The parts of a report that hold numbers and the curves behind them."""

import math
from collections import Counter

import numpy as np

from data_prep.manifest.manifest import Manifest
from data_prep.page import Section, Table
from data_prep.phrases import counted
from finetune.report.files import StoredResults
from finetune.report.results import ClassificationResults, SplitResults
from finetune.report.scored_split import ScoredSplit
from simclr_tf.evaluation.classifier_figures import (
    calibration_figure,
    confusion_figure,
    precision_recall_figure,
    roc_figure,
)
from simclr_tf.evaluation.curves import calibration_curve, precision_recall_curve, roc_curve
from simclr_tf.evaluation.figures import CSS_DPI, figure_picture
from simclr_tf.evaluation.intervals import Interval, interval_cell

_PHONE = 350  # CSS pixels that a phone shows
_MACRO = " (macro)"

WORDS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "cohen_kappa": "Cohen's kappa",
    "matthews_correlation": "Matthews correlation",
    "roc_auc": f"ROC AUC{_MACRO}",
    "average_precision": f"average precision{_MACRO}",
    "log_loss": "log loss (nats)",
    "expected_calibration_error": "calibration error",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
}


def main_split(results: ClassificationResults) -> str:
    """The split that curves and mistakes are shown of: test if it is there."""
    for name in ("test", "validation"):
        if name in results.splits:
            return name
    return next(reversed(results.splits))


def headline(stored: StoredResults, name: str, manifest: Manifest | None) -> list[str]:
    """The result in a few sentences, with what guessing would give."""
    results = stored.results
    split = results.splits[name]
    words = [
        f"{WORDS[metric]} {_inline(split.metrics[metric])}"
        for metric in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc")
    ]
    sentences = [
        f"On {counted(split.images, f'{name} image')} of "
        f"{counted(sum(n > 0 for n in split.support), 'class')}: "
        f"{', '.join(words)}; in brackets {results.level:.0%} intervals."
    ]
    guess = _most_frequent(stored, manifest)
    if guess is not None:
        share = split.support[results.class_names.index(guess)] / split.images
        sentences.append(
            f"Always saying {guess!r}, the most frequent class of the training images, would be "
            f"right for {share:.3f} of them, with a balanced accuracy of "
            f"{1 / max(1, sum(n > 0 for n in split.support)):.3f}."
        )
    if name != "test":
        sentences.append(
            f"There is no test split: these are numbers of {name}, on which choices were made."
        )
    return sentences


def metric_section(results: ClassificationResults) -> Section:
    """All metrics of all splits."""
    # What counts comes first: on a narrow screen the rest has to be scrolled to.
    splits = dict(reversed(results.splits.items()))
    rows = tuple(
        (WORDS[metric], *(interval_cell(split.metrics[metric]) for split in splits.values()))
        for metric in next(iter(splits.values())).metrics
    )
    table = Table(
        (
            "metric",
            *(f"{name}\n{counted(split.images, 'image')}" for name, split in splits.items()),
        ),
        rows,
        f"Metrics with {results.level:.0%} intervals",
        note="Computed once over all images of a split, from their scores. One-vs-rest areas are "
        "averaged over the classes without weights. Intervals: percentile bootstrap, "
        f"{results.resamples} resamples of {_units(splits)}; score intervals (Wilson, Newcombe) "
        "where resampling shows no spread. The calibration error's "
        "interval errs upwards.",
    )
    return Section("Metrics", text=results.remarks, tables=(table,))


def class_section(results: ClassificationResults, name: str) -> Section:
    """Confusion matrix and metrics of every class of one split."""
    split = results.splits[name]
    rows = tuple(
        (label, str(split.support[k]), *(_narrow(each[k]) for each in split.per_class.values()))
        for k, label in enumerate(results.class_names)
    )
    headers = ("class", "images", *(WORDS[m].removesuffix(_MACRO) for m in split.per_class))
    figure = confusion_figure(split.confusion, results.class_names)
    width = round(CSS_DPI * figure.get_figwidth())
    picture = figure_picture(
        figure,
        f"Confusion matrix of the {name} images: counts, shaded by the share of the true class. Its"
        f" trace over its sum is the accuracy, {split.metrics['accuracy'].value:.4f}.",
        alt=_most_confused(split, results.class_names),
        least=round(0.8 * width) if width > 1.4 * _PHONE else 0,
    )
    table = Table(headers, rows, f"Each class against the rest, {name}")
    return Section("Classes", pictures=(picture,), tables=(table,))


def curve_section(results: ClassificationResults, scored: ScoredSplit) -> Section:
    """ROC, precision-recall and calibration curves of one split."""
    scored = scored.labeled()
    split = results.splits[scored.split]
    columns = [(k, name, scored.labels == k) for k, name in enumerate(results.class_names)]
    roc = {name: roc_curve(yes, scored.scores[:, k]) for k, name, yes in columns}
    recall = {name: precision_recall_curve(yes, scored.scores[:, k]) for k, name, yes in columns}
    areas, precisions = (
        {name: split.per_class[metric][k].value for k, name, _ in columns}
        for metric in ("roc_auc", "average_precision")
    )
    figures = (
        (
            roc_figure({name: c for name, c in roc.items() if c is not None}, areas),
            "ROC curves, each class against the rest, with the areas under them. Points: roc.csv.",
        ),
        (
            precision_recall_figure(
                {name: c for name, c in recall.items() if c is not None}, precisions
            ),
            "Precision-recall curves, with average precisions. Points: precision_recall.csv.",
        ),
        (
            calibration_figure(calibration_curve(scored.labels, scored.scores)),
            "Calibration: how often the class with the highest score is right. On the dashed line "
            "scores mean what they say; below it they are too sure of themselves. Bars: 95 % Wilson"
            " intervals.",
        ),
    )
    return Section(
        f"Curves of the {scored.split} images",
        pictures=tuple(figure_picture(figure, caption, half=True) for figure, caption in figures),
    )


def _most_frequent(stored: StoredResults, manifest: Manifest | None) -> str | None:
    """The class with most training images; None where the training images are not known."""
    names = stored.results.class_names
    labels: Counter[str] = Counter()
    if manifest:
        labels.update(r.label for r in manifest.records if r.split == "train" and r.label in names)
    elif "train" in stored.splits:
        labels.update(names[k] for k in stored.splits["train"].labels if k >= 0)
    return max(names, key=lambda name: labels[name]) if labels else None


def _units(splits: dict[str, SplitResults]) -> str:
    grouped = [f"{split.units} in {name}" for name, split in splits.items() if split.grouped]
    return f"whole groups ({', '.join(grouped)})" if grouped else "the images of each class"


def _narrow(interval: Interval) -> str:
    """A narrow cell, for tables with many columns of numbers that cannot be negative."""
    if math.isnan(interval.low):
        return interval_cell(interval)
    return f"{interval.value:.3f}\n{interval.low:.2f}–{interval.high:.2f}"


def _inline(interval: Interval) -> str:
    return interval_cell(interval).replace("\n", " ")


def _most_confused(split: SplitResults, names: tuple[str, ...]) -> str:
    """Describes the confusion matrix in words, for readers who do not see it."""
    off = split.confusion.copy()
    np.fill_diagonal(off, 0)
    if not off.any():
        return "Confusion matrix: every image is taken for its own class."
    true, given = np.unravel_index(off.argmax(), off.shape)
    return (
        f"Confusion matrix. Most frequent mistake: {names[true]} taken for {names[given]}, "
        f"{off[true, given]} images."
    )
