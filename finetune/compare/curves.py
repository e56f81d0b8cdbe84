"""Label-efficiency curves: what a strategy makes of so many labels, with bands."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, PercentFormatter

from finetune.compare.results import Results
from finetune.report.sections import WORDS
from simclr_tf.evaluation.drawing import GREY, line_style, plain, single_axes

_LINE = 0.24  # inches a line of the legend


def label_curves(results: Results, rows: Sequence[str] = ()) -> Figure:
    """The metric over the number of labels, a curve a strategy; bands are 95 % intervals.

    Args:
        results: The table.
        rows: Names; empty = all.

    Returns:
        The figure; the horizontal axis is logarithmic.
    """
    shown = rows or results.shown
    figure, axes = single_axes(4.2 + _LINE * len(shown))
    x = [results.labels[fraction] for fraction in results.fractions]
    for place, row in enumerate(shown):
        known = [results.value(row, fraction) for fraction in results.fractions]
        style, means = line_style(results.shown.index(row)), [i.value for i in known]
        if len(x) == 1:  # side by side, for there are no lines to follow
            ends = [[means[0] - known[0].low], [known[0].high - means[0]]]
            axes.errorbar(
                x[0] * 1.02**place, means[0], yerr=ends, fmt="o", markersize=4, capsize=4,
                color=style["color"], label=plain(row),
            )  # fmt: skip
            continue
        axes.plot(x, means, marker="o", markersize=4, linewidth=1.6, label=plain(row), **style)
        axes.fill_between(
            x, [i.low for i in known], [i.high for i in known], alpha=0.13, linewidth=0,
            color=style["color"],
        )  # fmt: skip
    if results.metric in ("balanced_accuracy", "roc_auc"):
        guessing = 0.5 if results.metric == "roc_auc" else 1 / results.classes
        axes.axhline(guessing, color=GREY, linestyle="--", linewidth=1, label="guessing")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(x))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.set_xticklabels([_amount(results, fraction) for fraction in results.fractions])
    axes.set_xlabel("labels (share of those that there are)")
    axes.set_ylabel(WORDS[results.metric])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.legend(loc="outside lower center", ncols=1, frameon=False)
    return figure


def _amount(results: Results, fraction: float) -> str:
    return f"{results.labels[fraction]}\n({100 * fraction:.3g} %)"
