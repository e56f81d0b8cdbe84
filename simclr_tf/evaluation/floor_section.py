"""The part of a page that puts floors under a network: what simpler methods reach."""

from dataclasses import dataclass

from data_prep.page import Section, Table
from data_prep.phrases import counted
from simclr_tf.evaluation.floors import METRIC_WORDS, WORDS, Verdict
from simclr_tf.evaluation.intervals import Difference, interval_cell

_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc")


@dataclass(frozen=True)
class FloorVerdict:
    """A verdict, and what a reader must know of it.

    Attributes:
        verdict: On the floors.
        note: Of the images that it rests on; empty if nothing.
    """

    verdict: Verdict
    note: str = ""


def floor_section(found: FloorVerdict) -> Section:
    """A row a floor, with its metrics and how far the network is above it."""
    verdict = found.verdict
    metric = METRIC_WORDS[verdict.metric]
    rows = tuple(
        (
            WORDS[floor.name],
            *(interval_cell(floor.metrics[name]) for name in _SHOWN),
            _difference(floor.difference),
        )
        for floor in verdict.floors
    )
    below = tuple(i for i, f in enumerate(verdict.floors) if f.difference.low <= 0)
    table = Table(
        ("method", *(METRIC_WORDS[name] for name in _SHOWN), f"the network's {metric}\nless this"),
        rows,
        f"Simpler methods on the same {counted(verdict.images, f'{verdict.split} image')}",
        below,
        "Logistic regressions are standardized, their regularization chosen on a part of the "
        "training images. Differences: paired bootstrap over the same images; the network is above "
        "a method if the whole interval is above 0; rows where it is not are set off."
        + (f" {found.note}" if found.note else ""),
    )
    return Section("Floors", text=(verdict.sentence(),), tables=(table,))


def _difference(gap: Difference) -> str:
    return f"{gap.value:+.3f}\n[{gap.low:+.3f}, {gap.high:+.3f}]"
