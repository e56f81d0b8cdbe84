"""What all figures share: canvas, colours, lines, legends, PNG. Without pyplot and global state."""

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart; beyond eight classes the
# marker or the dashes change too.
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C7A00", "#444444",
)  # fmt: skip
_MARKERS = ("o", "^", "s", "D", "v", "P", "X")
_DASHES = ("-", "--", ":", "-.")
GREY = "#888888"
WIDTH = 7.0
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
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(x, y, label=plain(name), color=colour, marker=marker, markersize=4, linewidth=1.6)


def draw_chance(axes: Axes, level: float | None) -> None:
    """Draws the level of a model that has learnt nothing, dashed."""
    if level is not None:
        axes.axhline(level, color=GREY, linestyle="--", linewidth=1, label="chance")


def draw_legend(axes: Axes) -> None:
    """Draws a legend inside the axes if anything has a name."""
    handles, names = axes.get_legend_handles_labels()
    if any(names):
        axes.legend(handles, names, frameon=False)


def point_style(index: int) -> dict[str, Any]:
    """Colour and marker of the class at a position."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": _MARKERS[index // len(COLOURS) % len(_MARKERS)],
    }


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of the class at a position."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": _DASHES[index // len(COLOURS) % len(_DASHES)],
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


def to_png_base64(figure: Figure, dpi: int = 130) -> str:
    """The figure as base64 text, for `data:image/png;base64,...`."""
    return base64.b64encode(to_png(figure, dpi)).decode("ascii")
