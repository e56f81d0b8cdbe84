"""`report.html` of a comparison, with its label-efficiency curves."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, PercentFormatter

from data_prep.manifest.leaks import check_leaks
from data_prep.page import Page, Section, Table, repeat_section, software, warnings_section
from data_prep.phrases import capitalized, counted, format_seconds
from finetune.compare.advice import Advice, with_labels
from finetune.compare.images import Division
from finetune.compare.plan import ComparisonPlan
from finetune.compare.results import ComparisonResults, Pair
from finetune.compare.strategies import CompareSettings
from finetune.report.sections import WORDS
from simclr_tf.evaluation.figures import GRAY, figure_picture, line_style, plain, single_axes
from simclr_tf.training.run_warnings import RunWarning

_LINE = 0.24  # inches a line of the legend


def label_curves(results: ComparisonResults, rows: Sequence[str] = ()) -> Figure:
    """The metric over the number of labels, one curve per strategy; bands are 95 % intervals.

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
        axes.axhline(guessing, color=GRAY, linestyle="--", linewidth=1, label="guessing")
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


def _amount(results: ComparisonResults, fraction: float) -> str:
    return f"{results.labels[fraction]}\n({100 * fraction:.3g} %)"


PAGE = "report.html"


@dataclass(frozen=True)
class Head:
    """The top of the page.

    Attributes:
        title: Of the page.
        summary: The result in a few paragraphs.
        first: The first section, with the figure that says most.
    """

    title: str
    summary: tuple[str, ...]
    first: Section


MakeHead = Callable[[ComparisonResults, Advice, Division], Head]


def recommendation_head(results: ComparisonResults, advice: Advice, division: Division) -> Head:
    """The head with the recommendation, and curves over the number of labels."""
    del division
    return Head(
        title="Which strategy for these images",
        summary=(*advice.alarms, advice.recommendation, *advice.by_labels),
        first=_curves(results),
    )


_DPI = 160
_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "average_precision",
            "cohen_kappa", "log_loss", "expected_calibration_error")  # fmt: skip


def comparison_page(
    settings: CompareSettings,
    division: Division,
    plan: ComparisonPlan,
    results: ComparisonResults,
    advice: Advice,
    command: Sequence[str],
    seconds: float,
    make_head: MakeHead = recommendation_head,
) -> Page:
    """The page of a comparison.

    Args:
        settings: Its settings.
        division: Its images.
        plan: Its sizes and steps.
        results: Its table.
        advice: The recommendation.
        command: Program and arguments that repeat it.
        seconds: Time of the whole comparison.
        make_head: Makes the top of the page.
    """
    head = make_head(results, advice, division)
    return Page(
        title=head.title,
        summary=head.summary,
        sections=(
            *_warnings(results),
            head.first,
            _means(results),
            _against(advice),
            _pairs(results),
            _costs(results),
            _done(settings, plan, seconds),
            _images(settings, division),
            repeat_section(command, text=("The same command goes on where it was stopped.",)),
        ),
        facts={
            "Time": format_seconds(seconds),
            "Software": software(),
        },
    )


FLOOR_NOTE = (
    "No network stands behind majority (always the most frequent class) and raw_pixels (a linear"
    " probe on 16 x 16 pixels of each image): they are floors."
)


def _warnings(results: ComparisonResults) -> tuple[Section, ...]:
    """The section of the pretrainings' warnings; rows of one encoder share them."""
    by_warnings: dict[tuple[RunWarning, ...], list[str]] = {}
    for row, warned in results.warned.items():
        by_warnings.setdefault(warned, []).append(row)
    said = {", ".join(names): tuple(map(str, warned)) for warned, names in by_warnings.items()}
    text = "The pretrainings have warned of the following, the last of each kind."
    return warnings_section("strategy", text, said)


def mean_table(results: ComparisonResults) -> Table:
    """One row per strategy: mean and interval at every amount of labels."""
    rows = []
    for name in results.shown:
        cells = [format(results.value(name, fraction), ".3f") for fraction in results.fractions]
        rows.append((name, *(cell.replace(" [", "\n[") for cell in cells)))
    heads = (_head(results, fraction) for fraction in results.fractions)
    return Table(
        ("strategy", *heads),
        tuple(rows),
        f"{capitalized(WORDS[results.metric])} on the sealed test images",
        note=f"Means over {results.runs} run{'s' if results.runs > 1 else ''}, in brackets 95 %"
        " intervals over test images and runs. Intervals of two strategies may overlap and their"
        " paired difference still be told apart: see below."
        + (f" {FLOOR_NOTE}" if results.floors else ""),
    )


def _head(results: ComparisonResults, fraction: float) -> str:
    return f"{results.labels[fraction]} labels\n({100 * fraction:.3g} %)"


def _curves(results: ComparisonResults) -> Section:
    picture = figure_picture(
        label_curves(results),
        "Bands are 95 % intervals; the number of labels is on a logarithmic scale.",
        alt=f"{WORDS[results.metric]} over the number of labels, a curve a strategy",
        dpi=_DPI,
    )
    return Section("What labels are worth", pictures=(picture,))


def _means(results: ComparisonResults) -> Section:
    tables = [mean_table(results)]
    for fraction in reversed(results.fractions):
        rows = tuple(
            (name, *(f"{results.means[name, fraction][metric].value:.3f}" for metric in _METRICS))
            for name in results.shown
        )
        tables.append(
            Table(
                ("strategy", *(WORDS[metric].replace(" (macro)", "") for metric in _METRICS)),
                rows,
                f"Other metrics {with_labels(results, fraction)}",
            )
        )
    note = "Intervals of all metrics are in summary.csv, single fits in results.csv."
    return Section("All strategies", text=(note,), tables=tuple(tables))


def _against(advice: Advice) -> Section:
    return Section("What the numbers carry", text=(*advice.against, *advice.cautions))


def _pairs(results: ComparisonResults) -> Section:
    tables = []
    for fraction in results.fractions:
        rows: list[tuple[str, ...]] = []
        apart: list[int] = []
        for (a, b, at), pair in results.pairs.items():
            if at != fraction or b in results.floors:
                continue
            if pair.told_apart:
                apart.append(len(rows))
            rows.append((a, b, *_numbers(pair)))
        if rows:
            tables.append(
                Table(
                    ("strategy", "other", "difference", "95 % interval", "p", "p (Holm)",
                     "95 % over\nruns alone"),
                    tuple(rows), f"Differences {with_labels(results, fraction)}",
                    highlight=tuple(apart),
                )
            )  # fmt: skip
    text = (
        f"Strategy less other, in {WORDS[results.metric]}; both learnt from the same labels and"
        " were scored on the same images. The interval is a paired bootstrap that draws test"
        " images (groups whole) and runs; p-values are corrected for the pairs of each table"
        " (Holm). Rows told apart are set off. The last column is Student's interval over runs,"
        " for these test images alone.",
    )
    if not tables:
        return Section("Pairs", text=("There is only one strategy.",))
    return Section("Pairs", text=text, tables=(*tables, *_floor_tables(results)))


def _floor_tables(results: ComparisonResults) -> list[Table]:
    """Strategies against the floors: only where a network is not above one of them."""
    rows = tuple(
        (a, b, with_labels(results, at), *_numbers(pair)[:4])
        for (a, b, at), pair in results.pairs.items()
        if b in results.floors and not (pair.told_apart and pair.difference.value > 0)
    )
    if not results.floors:
        return []
    headers = ("strategy", "floor", "labels", "difference", "95 % interval", "p", "p (Holm)")
    if not rows:
        rows = (("all", "all", "any", "above", "", "", ""),)
    return [
        Table(
            headers, rows, "Not above a floor",
            note="Every other pair of a strategy and a floor is told apart, the strategy above."
            " p-values are corrected for all such pairs with as many labels (Holm).",
        )
    ]  # fmt: skip


def _numbers(pair: Pair) -> tuple[str, ...]:
    d, t = pair.difference, pair.t_test
    over_runs = "–" if t is None or math.isnan(t.low) else f"{t.low:+.3f} to {t.high:+.3f}"
    interval = f"{d.low:+.3f} to {d.high:+.3f}"
    return (f"{d.value:+.3f}", interval, _p(d.p_value), _p(pair.p_holm), over_runs)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _costs(results: ComparisonResults) -> Section:
    rows = tuple(
        (
            name,
            format_seconds(cost.shared),
            format_seconds(cost.fits),
            f"{cost.images_unlabeled:,}",
            f"{cost.images_labeled:,}",
        )
        for name, cost in results.costs.items()
    )
    table = Table(
        ("strategy", "pretraining\nand features", "all fits", "images seen\nunlabelled",
         "images seen\nwith labels"),
        rows,
        note="Rows on one encoder share its pretraining: it was done once. Images are counted"
        " each time they are shown; a linear probe is fitted on features and shows none.",
    )  # fmt: skip
    return Section("What it cost", tables=(table,))


def _done(s: CompareSettings, plan: ComparisonPlan, seconds: float) -> Section:
    sizes = plan.sizes
    settings = (
        ("own network", f"ResNet-{s.sizes.resnet_depth}, width {sizes.width_multiplier:g}"),
        ("its images", f"{sizes.image_size} pixels"),
        ("images of networks with ImageNet weights", f"{sizes.imagenet_image_size} pixels"),
        ("pretraining", f"{sizes.pretrain_steps} steps of {sizes.pretrain_batch} images"),
        ("fine-tuning", f"{sizes.finetune_steps} steps of {sizes.finetune_batch} images"),
        ("from scratch", _times_as_many(s.sizes.scratch_factor)),
    )
    text = [*plan.left_out, *plan.said]
    if s.sizes.minutes:
        text.append(_kept_to(plan, seconds, 60 * s.sizes.minutes))
    alike = ", in which all classes count the same," if s.classes_count_the_same else ","
    text.append(
        "There is no validation set: a linear probe chooses its regularisation by cross-validation"
        f" on its own labels{alike} and fine-tuning takes a fixed number of steps, so no strategy"
        " sees a label beyond those counted. Settings are the usual ones of each strategy, not"
        " tuned on these images."
    )
    return Section("What was done", text=tuple(text), tables=(Table(("what", "size"), settings),))


def _times_as_many(factor: int) -> str:
    return f"{factor} times as many" if factor > 1 else "as many"


def _kept_to(plan: ComparisonPlan, seconds: float, budget: float) -> str:
    """Compares the time taken with the budget, and says why they differ where they do."""
    share, planned = seconds / budget, (plan.spent + sum(plan.seconds.values())) / budget
    why = ""
    if planned < 0.8:
        why = "; there was nothing to spend the rest on"
    elif abs(share - 1) > 0.2:
        why = f"; the machine was {'slower' if share > 1 else 'faster'} than when it was timed"
    return f"It took {format_seconds(seconds)}, {100 * share:.0f} % of the budget{why}."


def _images(s: CompareSettings, division: Division) -> Section:
    pool = [r for r in division.images.records if r.split == "train"]
    labeled = sum(bool(r.label) for r in pool)
    leaks = check_leaks(division.images)
    shared = [f"{leak.shared} {leak.what}s" for leak in leaks if leak.shared]
    checked = ", ".join(f"{leak.checked} {leak.what}s" for leak in leaks if leak.checked)
    d = s.design
    text = [
        f"{counted(len(division.images), 'image')} of {len(division.class_names)} classes."
        f" {len(pool)} may be learnt from, {labeled} of them with labels;"
        f" {len(division.test_rows)} are sealed for the test, which no pretraining, fit or"
        " choice has seen.",
        f"Do not trust these numbers: both sides share {', '.join(shared)}."
        if shared
        else f"Both sides share nothing (looked at: {checked}).",
        f"{counted(d.folds, 'fold')}, {counted(d.seeds, 'seed')}:"
        + (f" each fold leaves out another 1/{d.folds} of the labelled images." if d.folds > 1
           else " all labelled images are learnt from.")
        + " In a fold the smaller amounts of labels are parts of the larger ones"
        + (
            ", shares of shares, numbers a class of numbers a class"
            if s.design.labels_per_class
            else ""
        )
        + ", and all strategies get the same.",
        *division.remarks,
    ]  # fmt: skip
    return Section("Images and labels", text=tuple(text))
