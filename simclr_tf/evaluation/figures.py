"""Figures of runs and representations, and the canvas that all figures share.

Every function returns a `matplotlib.figure.Figure`; `to_png` makes a file of it.
"""

import base64
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from data_prep.page import Picture
from simclr_tf.evaluation.intervals import Interval

# Okabe and Ito's palette, which colour-blind readers can tell apart; beyond eight classes the
# marker or the dashes change too.
COLORS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C7A00", "#444444",
)  # fmt: skip
_MARKERS = ("o", "^", "s", "D", "v", "P", "X")
_DASHES = ("-", "--", ":", "-.")
GRAY = "#888888"
WIDTH = 7.0
CSS_DPI = 96  # of the lengths on a page
NARROW = 4.6  # fits a phone's screen without its letters becoming too small

Curve = tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]


def bare_figure(height: float, title: str = "", width: float = WIDTH) -> Figure:
    """An empty figure; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(plain(title))
    return figure


def single_axes(height: float, title: str = "", width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, open above and to the right; sizes in inches."""
    figure = bare_figure(height, title, width)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_lines(axes: Axes, curves: Mapping[str, Curve]) -> None:
    """Draws curves by name; short ones with a dot at every point."""
    for index, (name, (x, y)) in enumerate(curves.items()):
        # A single point would be an invisible line.
        marker = "o" if len(x) < 30 else ""
        color = COLORS[index % len(COLORS)]
        axes.plot(x, y, label=plain(name), color=color, marker=marker, markersize=4, linewidth=1.6)


def draw_chance(axes: Axes, level: float | None) -> None:
    """Draws the level of a model that has learnt nothing, dashed."""
    if level is not None:
        axes.axhline(level, color=GRAY, linestyle="--", linewidth=1, label="chance")


def draw_legend(axes: Axes) -> None:
    """Draws a legend inside the axes if anything has a name."""
    handles, names = axes.get_legend_handles_labels()
    if any(names):
        axes.legend(handles, names, frameon=False)


def point_style(index: int) -> dict[str, Any]:
    """Colour and marker of the class at a position."""
    return {
        "color": COLORS[index % len(COLORS)],
        "marker": _MARKERS[index // len(COLORS) % len(_MARKERS)],
    }


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of the class at a position."""
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": _DASHES[index // len(COLORS) % len(_DASHES)],
    }


def plain(text: str, limit: int = 0) -> str:
    """A text that matplotlib draws as it stands: no formulas, no label that it would leave out.

    Args:
        text: such as the name of a class or a file.
        limit: longer ones lose their middle; 0 = none do.
    """
    text = " ".join(text.split())
    if limit and len(text) > limit:
        tail = (limit - 1) // 2
        text = f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"
    text = text.replace("$", r"\$")
    return f"\u200b{text}" if text.startswith("_") else text


def to_png(figure: Figure, dpi: int = 130) -> bytes:
    """The figure as PNG bytes, the same for the same figure."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names in scripts that the font lacks become boxes here; pages give them as text as well.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        # Said when the machine is slow.
        warnings.filterwarnings("ignore", message="Creating legend with loc=")
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def figure_picture(
    figure: Figure,
    caption: str = "",
    *,
    alt: str = "",
    dpi: int = 200,
    least: int = 0,
    half: bool = False,
) -> Picture:
    """The figure as a picture of a page, in its own size.

    Args:
        figure: Of any size.
        caption: See `Picture`, as the others.
        alt: For readers who do not see it.
        dpi: Dots an inch; a page shows 96, so letters stay sharp on finer screens.
        least: CSS pixels below which it is not shrunk.
        half: Whether it takes half the page's width.
    """
    width = round(CSS_DPI * figure.get_figwidth())
    return Picture(to_png(figure, dpi), caption, alt, width=width, least=least, half=half)


def to_png_base64(figure: Figure, dpi: int = 130) -> str:
    """The figure as base64 text, for `data:image/png;base64,...`."""
    return base64.b64encode(to_png(figure, dpi)).decode("ascii")


__all__ = [
    "accuracy_bars",
    "accuracy_over_time",
    "draw_classes",
    "embedding_map",
    "figure_picture",
    "legend_grid",
    "loss_curves",
    "project_2d",
    "to_png",
    "to_png_base64",
    "view_sheet",
]


def loss_curves(
    curves: Mapping[str, Curve],
    *,
    xlabel: str = "step",
    ylabel: str = "loss",
    chance: float | None = None,
    title: str = "",
    width: float = WIDTH,
) -> Figure:
    """Curves over training.

    Args:
        curves: name -> (x, y), equally long; values that are not finite leave a gap.
        xlabel: of the horizontal axis.
        ylabel: of the vertical axis.
        chance: level of a model that has learnt nothing, drawn as a dashed line.
        title: of the figure.
        width: in inches.

    Returns:
        The figure.
    """
    figure, axes = single_axes(3.6, title, width)
    draw_lines(axes, curves)
    draw_chance(axes, chance)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    draw_legend(axes)
    return figure


def accuracy_over_time(
    curves: Mapping[str, Curve],
    *,
    xlabel: str = "step",
    ylabel: str = "accuracy",
    chance: float | None = None,
    title: str = "",
    width: float = WIDTH,
) -> Figure:
    """Accuracies from 0 to 1 over training, as for k-NN on frozen features.

    Args:
        curves: name -> (x, y in [0, 1]).
        xlabel: of the horizontal axis.
        ylabel: of the vertical axis.
        chance: accuracy of guessing, drawn as a dashed line.
        title: of the figure.
        width: in inches.

    Returns:
        The figure.
    """
    figure = loss_curves(
        curves, xlabel=xlabel, ylabel=ylabel, chance=chance, title=title, width=width
    )
    axes = figure.axes[0]
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def accuracy_bars(
    results: Mapping[str, Interval], *, chance: float | None = None, title: str = ""
) -> Figure:
    """One bar a method with its confidence interval, the number beside it.

    Args:
        results: name -> accuracy in [0, 1], drawn from top to bottom.
        chance: accuracy of guessing, drawn as a dashed line.
        title: of the figure.

    Returns:
        The figure.
    """
    figure, axes = single_axes(0.9 + 0.5 * len(results), title)
    rows = np.arange(len(results))
    for row, interval in zip(rows, results.values(), strict=True):
        axes.barh(row, interval.value, height=0.6, color=COLORS[0], alpha=0.85)
        ends = [[interval.value - interval.low], [interval.high - interval.value]]
        axes.errorbar(interval.value, row, xerr=ends, color="black", capsize=4, linewidth=1.2)
        axes.annotate(
            f"{interval.value:.1%}",
            (max(interval.high, interval.value), row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    if chance is not None:
        axes.axvline(chance, color=GRAY, linestyle="--", linewidth=1, label="chance")
        figure.legend(loc="outside lower right", frameon=False)
    axes.set_yticks(rows, [plain(name) for name in results])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("accuracy")
    return figure


def view_sheet(
    views: np.ndarray, originals: np.ndarray | None = None, *, title: str = ""
) -> Figure:
    """Images in columns, each above its augmented views.

    Args:
        views: [n, V, S, S, C], uint8 or float in [0, 1]; 1 or 3 channels, of others the first
            is shown.
        originals: [n, H, W, C], shown in a first row.
        title: of the figure.

    Returns:
        The figure.
    """
    columns, num_views = views.shape[:2]
    rows = [("image", originals)] if originals is not None else []
    rows += [(f"view {index + 1}", views[:, index]) for index in range(num_views)]
    cell = WIDTH / columns
    figure = bare_figure(cell * len(rows) + 0.4, title)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for row, (label, images) in enumerate(rows):
        for column in range(columns):
            axes = grid[row, column]
            axes.imshow(_showable(images[column]), cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(label)
    return figure


def project_2d(
    features: np.ndarray, method: Literal["pca", "tsne"] = "pca", *, seed: int = 0
) -> np.ndarray:
    """Features in the plane.

    Args:
        features: float [n, d], n > 2.
        method: `pca`, or `tsne` (van der Maaten and Hinton 2008) on the first 50 components.
        seed: of t-SNE.

    Returns:
        float32 [n, 2].
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    components = 2 if method == "pca" else min(50, *features.shape)
    reduced = PCA(components, random_state=seed).fit_transform(features.astype(np.float64))
    if method == "tsne":
        perplexity = min(30.0, (len(features) - 1) / 3)
        model = TSNE(2, perplexity=perplexity, random_state=seed, init="pca")
        # Its threads spin while they wait: on a busy machine several take many times as long.
        with threadpool_limits(1):
            reduced = model.fit_transform(reduced)
    return reduced.astype(np.float32)


def embedding_map(
    points: np.ndarray, labels: np.ndarray, class_names: Sequence[str], *, title: str = ""
) -> Figure:
    """Points in the plane, coloured by class, the legend beside them.

    Args:
        points: float [n, 2].
        labels: int [n]; -1 = no label, drawn grey.
        class_names: in the order of the labels.
        title: of the figure.

    Returns:
        The figure.
    """
    columns, rows = legend_grid(class_names)
    figure, axes = single_axes(5.2 + 0.2 * rows, title)
    draw_classes(axes, points, labels, class_names)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_aspect("equal", adjustable="datalim")
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, markerscale=1.4)
    return figure


def legend_grid(class_names: Sequence[str]) -> tuple[int, int]:
    """Columns and rows of a legend of classes below a figure, one row to spare."""
    longest = max((len(name) for name in class_names), default=1)
    columns = max(1, min(4, int(WIDTH / (0.55 + 0.085 * longest))))
    return columns, math.ceil((len(class_names) + 1) / columns)


def draw_classes(
    axes: Axes,
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    size: float = 18,
) -> None:
    """Draws points in the plane, coloured by class, those without label small and grey.

    Args:
        axes: Where to draw.
        points: float [n, 2].
        labels: int [n]; -1 = no label.
        class_names: in the order of the labels.
        size: of a dot, in square points.
    """
    unlabeled = labels < 0
    if unlabeled.any():
        axes.scatter(
            points[unlabeled, 0],
            points[unlabeled, 1],
            s=8,
            color=GRAY,
            alpha=0.4,
            label="no label",
        )
    for index, name in enumerate(class_names):
        chosen = labels == index
        axes.scatter(
            points[chosen, 0],
            points[chosen, 1],
            s=size,
            alpha=0.8,
            label=plain(name),
            linewidths=0,
            **point_style(index),
        )


def _showable(image: np.ndarray) -> np.ndarray:
    """An image as float [H, W] or [H, W, 3] in [0, 1]."""
    scaled = image / 255.0 if image.dtype == np.uint8 else np.asarray(image, np.float64)
    shown = scaled if scaled.shape[-1] == 3 else scaled[..., 0]
    return np.clip(shown, 0, 1)
