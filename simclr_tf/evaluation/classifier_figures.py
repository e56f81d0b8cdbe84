"""Figures of a classifier's answers: confusion matrix, ROC, precision-recall, calibration."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simclr_tf.evaluation.curves import CalibrationCurve, PrecisionRecallCurve, RocCurve
from simclr_tf.evaluation.figures import (
    COLORS,
    GRAY,
    NARROW,
    Curve,
    bare_figure,
    line_style,
    plain,
)
from simclr_tf.evaluation.intervals import wilson_interval

_LONGEST_NAME = 26
_SHORT_LABEL = 20  # letters that fit in one of two columns
_MOST_COUNTS = 25  # classes up to which the counts are printed
_MOST_NAMES = 60  # classes up to which every class is named
_MOST_CURVES = 16  # classes up to which every curve has its colour
_WORST_CURVES = 8  # coloured of more than that
_LETTER = 0.085  # inches
_SQUARE = 4.1  # height of a figure with square axes, without its legend


def confusion_figure(matrix: np.ndarray, class_names: Sequence[str], *, title: str = "") -> Figure:
    """Heat map of a confusion matrix, shaded by the share of each true class.

    Args:
        matrix: int [K, K], rows = true, columns = predicted.
        class_names: in the order of the rows.
        title: of the figure.

    Returns:
        The figure; counts are printed up to 25 classes, names up to 60.
    """
    size = len(class_names)
    names = [plain(name, _LONGEST_NAME) for name in class_names]
    room = 0.7 + _LETTER * max(len(name) for name in names) if size <= _MOST_NAMES else 1.0
    widest = len(str(int(matrix.max(initial=0))))
    cell = max(0.34, 0.13 + 0.07 * widest) if size <= _MOST_COUNTS else 0.17
    side = room + min(max(2.0, cell * size), 12.0)
    figure = bare_figure(side, title, side)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if size <= _MOST_NAMES:
        small = 10 if size <= _MOST_COUNTS else 7
        axes.set_xticks(range(size), names, rotation=90, fontsize=small)
        axes.set_yticks(range(size), names, fontsize=small)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if size <= _MOST_COUNTS:
        for row, column in np.argwhere(matrix > 0):
            color = "white" if shares[row, column] > 0.5 else "black"
            text = str(int(matrix[row, column]))
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    return figure


def roc_figure(
    curves: Mapping[str, RocCurve], areas: Mapping[str, float], *, title: str = ""
) -> Figure:
    """ROC curves, each class against the rest, with the areas in the legend.

    Args:
        curves: class -> curve.
        areas: class -> area under its curve.
        title: of the figure.

    Returns:
        The figure; of more than 16 classes the 8 with the smallest areas have colours and names.
    """
    figure, axes = _square(title)
    lines = {k: (c.false_positive_rate, c.true_positive_rate) for k, c in curves.items()}
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
    _class_curves(figure, axes, lines, areas)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    return figure


def precision_recall_figure(
    curves: Mapping[str, PrecisionRecallCurve], areas: Mapping[str, float], *, title: str = ""
) -> Figure:
    """Precision-recall curves, each class against the rest, with average precisions.

    Args:
        curves: class -> curve.
        areas: class -> average precision.
        title: of the figure.

    Returns:
        The figure; of more than 16 classes the 8 with the smallest areas have colours and names.
    """
    figure, axes = _square(title)
    lines = {name: (c.recall, c.precision) for name, c in curves.items()}
    _class_curves(figure, axes, lines, areas, drawstyle="steps-post")
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    return figure


def calibration_figure(curve: CalibrationCurve, *, title: str = "") -> Figure:
    """Reliability diagram: accuracy against confidence, and how many images have which.

    Args:
        curve: the bins.
        title: of the figure.

    Returns:
        The figure; bars are 95 % Wilson intervals of independent images.
    """
    figure = bare_figure(4.9, title, NARROW)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    share = curve.right / curve.images
    ends = [
        wilson_interval(np.arange(n) < right)
        for right, n in zip(curve.right, curve.images, strict=True)
    ]
    errors = np.array([[i.value - i.low, i.high - i.value] for i in ends]).T
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
    axes.errorbar(
        curve.confidence, share, yerr=errors, color=COLORS[0], marker="o", capsize=3, linewidth=1.4
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.04)
    axes.set_ylabel("accuracy")
    width = curve.high - curve.low
    below.bar(curve.low, curve.images, width=0.92 * width, align="edge", color=COLORS[0])
    below.set_ylabel("images")
    below.set_xlabel("probability of the predicted class")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for each in (axes, below):
        each.spines[["top", "right"]].set_visible(False)
    return figure


def _square(title: str) -> tuple[Figure, Axes]:
    figure = bare_figure(_SQUARE, title, NARROW)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.03)
    axes.set_aspect("equal")
    return figure, axes


def _class_curves(
    figure: Figure,
    axes: Axes,
    curves: Mapping[str, Curve],
    areas: Mapping[str, float],
    drawstyle: str = "default",
) -> None:
    named = list(curves)
    if len(curves) > _MOST_CURVES:
        named = sorted(curves, key=lambda name: areas[name])[:_WORST_CURVES]
        rest = [curve for name, curve in curves.items() if name not in named]
        for index, (x, y) in enumerate(rest):
            label = f"the other {len(rest)} classes" if index == 0 else None
            axes.plot(x, y, color="#d0d0d0", linewidth=0.8, drawstyle=drawstyle, label=label)
    for index, name in enumerate(named):
        label = f"{plain(name, _LONGEST_NAME)}  {areas[name]:.3f}"
        x, y = curves[name]
        axes.plot(x, y, linewidth=1.4, drawstyle=drawstyle, label=label, **line_style(index))
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels), default=0) <= _SHORT_LABEL else 1
    figure.set_figheight(_SQUARE + 0.18 * math.ceil(len(labels) / columns))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9,
        handlelength=2.6, columnspacing=1.2, labelspacing=0.3,
    )  # fmt: skip
