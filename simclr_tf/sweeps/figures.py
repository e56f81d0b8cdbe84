"""Figures that show several runs or settings side by side."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from simclr_tf.evaluation.figures import (
    COLORS,
    GRAY,
    WIDTH,
    bare_figure,
    draw_classes,
    legend_grid,
    plain,
    single_axes,
)
from simclr_tf.evaluation.intervals import Interval

_PANEL_COLUMNS = 3
_NAME_LENGTH = 60
_PANEL_NAME = 34


@dataclass(frozen=True)
class SettingPoint:
    """A row of `setting_points`.

    Attributes:
        interval: Mean accuracy with its interval.
        seeds: Accuracy of each seed.
        floor: Whether it is drawn as what the others must beat.
    """

    interval: Interval
    seeds: Sequence[float]
    floor: bool = False


def setting_points(
    results: Mapping[str, SettingPoint], *, chance: float | None = None, xlabel: str = "accuracy"
) -> Figure:
    """Draws a row for each setting: the mean with its interval, and a dot for each seed.

    Args:
        results: name -> accuracies in [0, 1], from top to bottom.
        chance: accuracy of guessing, drawn as a dashed line.
        xlabel: what is drawn.

    Returns:
        The figure.
    """
    figure, axes = single_axes(1.1 + 0.42 * len(results))
    for row, point in enumerate(results.values()):
        i, color = point.interval, GRAY if point.floor else COLORS[0]
        ends = [[i.value - i.low], [i.high - i.value]]
        axes.errorbar(i.value, row, xerr=ends, color=color, marker="D", markersize=6, capsize=4)
        if len(point.seeds) > 1:
            below = np.full(len(point.seeds), row + 0.27)
            axes.scatter(point.seeds, below, s=16, color=COLORS[1], linewidths=0, zorder=3)
    if chance is not None:
        axes.axvline(chance, color=GRAY, linestyle="--", linewidth=1, label="chance")
        figure.legend(loc="outside lower right", frameon=False)
    axes.set_yticks(range(len(results)), [plain(name, _NAME_LENGTH) for name in results])
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel)
    return figure


def embedding_panels(
    panels: Mapping[str, np.ndarray], labels: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """The same images in several embeddings, coloured by class, one legend for all.

    Args:
        panels: name -> points, float [n, 2].
        labels: int [n]; -1 = no label, drawn grey.
        class_names: in the order of the labels.

    Returns:
        The figure.
    """
    columns = min(_PANEL_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    legend_columns, legend_rows = legend_grid(class_names)
    side = WIDTH / columns
    figure = bare_figure(rows * (side + 0.3) + 0.2 * legend_rows + 0.1)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (name, points) in zip(grid.flat, panels.items(), strict=False):
        draw_classes(axes, points, labels, class_names, size=10)
        axes.set_title(_broken(name, _PANEL_NAME * 2 // (columns + 1) + 8), fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("#d5dae0")
        axes.set_aspect("equal", adjustable="datalim")
    handles, names = grid.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=legend_columns, frameon=False,
        markerscale=1.6,
    )  # fmt: skip
    return figure


def _broken(name: str, width: int) -> str:
    """A name in up to two lines, broken after a comma."""
    words = plain(name, 2 * width).split(", ")
    lines = [words[0]]
    for word in words[1:]:
        joined = f"{lines[-1]}, {word}"
        if len(joined) <= width or len(lines) == 2:
            lines[-1] = joined
        else:
            lines[-1] += ","
            lines.append(word)
    return "\n".join(lines)
