"""Figures of depth maps: mean depths, distributions, profiles, maps side by side.

All fit a phone's screen; `simclr_tf.evaluation.figures` makes PNG files of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from simclr_tf.evaluation.figures import (
    COLORS,
    GRAY,
    NARROW,
    Curve,
    bare_figure,
    plain,
    point_style,
    single_axes,
)

_TRUE, _PREDICTED = "#444444", COLORS[1]
_MOST_NAMED = 8


@dataclass(frozen=True)
class Example:
    """One image with its maps.

    Attributes:
        name: what to call it.
        image: float [H, W] in [0, 1], as the microscope gave it.
        predicted: float [H, W], in units of depth.
        true: the same; None = not known.
    """

    name: str
    image: np.ndarray
    predicted: np.ndarray
    true: np.ndarray | None = None

    @property
    def deepest_row(self) -> int:
        """The row through the deepest point, of the true map if it is known.

        Roughness alone decides between neighbouring pixels of a flat floor: means of 3 x 3 count.
        """
        depth = self.predicted if self.true is None else self.true
        padded = np.pad(depth.astype(np.float64), 1, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
        return int(np.argmax(windows.mean(axis=(2, 3)).max(axis=1)))


def axis_name(what: str, unit: str) -> str:
    """`depth (nm)`, or `depth (units)` where the unit is not known."""
    return f"{what} ({unit or 'units'})"


def mean_depth_figure(points: Mapping[str, Curve], unit: str, known: str) -> Figure:
    """Predicted against known mean depth, with the line on which both are equal.

    Args:
        points: case -> (known, predicted).
        unit: of depth.
        known: what the known means are of, such as `site`.
    """
    figure, axes = single_axes(4.4, width=NARROW)
    everything = np.concatenate([np.ravel(side) for pair in points.values() for side in pair])
    ends = np.array([everything.min(), everything.max()])
    ends += np.array([-0.05, 0.05]) * max(float(np.ptp(ends)), 1.0)
    axes.plot(ends, ends, color=GRAY, linestyle="--", linewidth=1)
    for index, (case, (true, predicted)) in enumerate(points.items()):
        axes.scatter(true, predicted, s=16, alpha=0.7, linewidths=0, label=plain(case, 24),
                     **point_style(index))  # fmt: skip
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    axes.set_xlabel(axis_name(f"known mean depth of the {known}", unit))
    axes.set_ylabel(axis_name("predicted mean depth", unit))
    if any(points) and len(points) <= 3 * _MOST_NAMED:
        axes.legend(frameon=False, fontsize=8, loc="upper left", handletextpad=0.2)
    return figure


def distribution_figure(
    edges: np.ndarray, predicted: np.ndarray, true: np.ndarray | None, unit: str
) -> Figure:
    """Distribution of depths over the pixels, on a logarithmic scale.

    Args:
        edges: float [b + 1] of the bins.
        predicted: int [b], pixels.
        true: int [b]; None = not known.
        unit: of depth.
    """
    figure, axes = single_axes(2.7, width=NARROW)
    width = float(edges[1] - edges[0])
    drawn = []
    if true is not None and true.sum():
        share = true / true.sum() / width
        axes.stairs(share, edges, fill=True, color=_TRUE, alpha=0.3, label="true")
        drawn.append(share)
    share = predicted / max(1, predicted.sum()) / width
    axes.stairs(share, edges, color=_PREDICTED, linewidth=1.8, label="predicted")
    drawn.append(share)
    positive = np.concatenate([values[values > 0] for values in drawn])
    if len(positive):
        axes.set_yscale("log")
        axes.set_ylim(max(positive.min(), 1e-5 * positive.max()) * 0.5, positive.max() * 6)
    axes.set_xlabel(axis_name("depth", unit))
    axes.set_ylabel("share of pixels per unit")
    axes.legend(frameon=False, loc="upper right", ncols=2)
    return figure


def profile_figure(example: Example, unit: str) -> Figure:
    """Depth along the row through the deepest point, growing downwards."""
    row = example.deepest_row
    figure, axes = single_axes(2.7, width=NARROW)
    columns = np.arange(example.predicted.shape[1])
    if example.true is not None:
        axes.plot(columns, example.true[row], color=_TRUE, linewidth=1.6, label="true")
    axes.plot(columns, example.predicted[row], color=_PREDICTED, linewidth=1.8, linestyle="-",
              label="predicted")  # fmt: skip
    axes.invert_yaxis()
    axes.margins(y=0.12)
    axes.set_xlabel("column (pixels)")
    axes.set_ylabel(axis_name("depth", unit))
    axes.legend(frameon=False, loc="upper center", ncols=2)
    return figure


def example_figure(example: Example, unit: str) -> Figure:
    """SEM image, true and predicted depth with one colour scale, and their difference."""
    maps = {"true": example.true, "predicted": example.predicted}
    shown = {title: values for title, values in maps.items() if values is not None}
    low, high = min(m.min() for m in shown.values()), max(m.max() for m in shown.values())
    panels = 1 + len(shown) + (example.true is not None)
    tall = min(example.image.shape[0] / example.image.shape[1], 3.0)
    figure = bare_figure(tall + 0.9, width=panels + 0.6)
    # Colour bars have a row of their own, so that all pictures are of one size.
    grid = figure.add_gridspec(2, panels, height_ratios=(tall, 0.07))
    axes = [figure.add_subplot(grid[0, place]) for place in range(panels)]
    _panel(axes[0], example.image, "SEM", "gray", 0, 1)
    for place, (title, values) in enumerate(shown.items(), 1):
        picture = _panel(axes[place], values, title, "viridis", float(low), float(high))
    bar = figure.colorbar(picture, figure.add_subplot(grid[1, 1 : 1 + len(shown)]),
                          orientation="horizontal")  # fmt: skip
    _label_bar(bar, axis_name("depth", unit))
    if example.true is not None:
        error = example.predicted - example.true
        most = max(float(np.abs(error).max()), 1e-6)
        picture = _panel(axes[-1], error, "difference", "RdBu_r", -most, most)
        bar = figure.colorbar(picture, figure.add_subplot(grid[1, -1]), orientation="horizontal")
        bar.set_ticks([-most, 0, most], labels=[f"−{most:.3g}", "0", f"{most:.3g}"])
        _label_bar(bar, axis_name("error", unit))
    return figure


def _label_bar(bar: Colorbar, text: str) -> None:
    bar.set_label(text, fontsize=8)
    bar.ax.tick_params(labelsize=8)


def _panel(
    axes: Axes, values: np.ndarray, title: str, cmap: str, low: float, high: float
) -> AxesImage:
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(values, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
