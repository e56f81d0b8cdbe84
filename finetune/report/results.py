"""The results of a classifier: every metric of every split, with intervals; the threshold.

    results = evaluate_classifier({"validation": ..., "test": ...}, class_names)
    write_results(folder, results, splits, history)      # in `files`
    write_report(folder, RunFacts(...))                  # in `page`

The best epoch is chosen before, and the decision threshold here, both on validation; test is scored
once and handed over with the rest.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from data_prep.manifest.manifest import SPLITS
from finetune.report.scored_split import ScoredSplit
from simclr_tf.evaluation.bootstrap import bootstrap_metrics
from simclr_tf.evaluation.intervals import RESAMPLES, Interval, wilson_interval
from simclr_tf.evaluation.metrics import confusion_matrix

Criterion = Literal["youden", "f1", "fixed"]

CRITERIA: dict[Criterion, str] = {
    "youden": "maximal Youden's J (true positive rate - false positive rate)",
    "f1": "maximal F1 of the positive class",
    "fixed": "given, not chosen",
}


@dataclass(frozen=True)
class Decision:
    """The rule that turns scores into classes.

    Attributes:
        threshold: An image with at least this score of the positive class is of that class; None =
            the class with the highest score (more than two classes).
        positive: Position of the positive class; -1 without a threshold.
        criterion: How the threshold was chosen.
        chosen_on: Split that it was chosen on; "" = none.
    """

    threshold: float | None = None
    positive: int = -1
    criterion: Criterion = "fixed"
    chosen_on: str = ""

    def classes(self, scores: np.ndarray) -> np.ndarray:
        """Predicted classes int64 [n] of scores float64 [n, K]."""
        if self.threshold is None:
            return scores.argmax(axis=1)
        return np.where(
            scores[:, self.positive] >= self.threshold, self.positive, 1 - self.positive
        )


def choose_threshold(positive: np.ndarray, score: np.ndarray, criterion: Criterion) -> float | None:
    """The threshold that serves a criterion best.

    Candidates lie half-way between neighbouring scores, so that images like those seen stay on
    their side; of equally good ones the nearest to 0.5 is taken.

    Args:
        positive: bool [n], whether an image is of the positive class.
        score: float [n], its score of that class, in [0, 1].
        criterion: `youden` or `f1`.

    Returns:
        The threshold; None where there are no images of one of the two classes.
    """
    if not positive.any() or positive.all():
        return None
    values, which = np.unique(score, return_inverse=True)
    # Counts at or above every distinct score; the lowest candidate takes all images.
    hits = np.bincount(which, positive)[::-1].cumsum()[::-1]
    taken = np.bincount(which)[::-1].cumsum()[::-1]
    negatives, positives = (~positive).sum(), positive.sum()
    if criterion == "youden":
        # In whole numbers, so that equally good thresholds are equal.
        quality = hits * negatives - (taken - hits) * positives
    else:
        quality = 2 * hits / (taken + positives)
    middle = np.concatenate([values[:1], (values[:-1] + values[1:]) / 2])
    best = np.flatnonzero(quality == quality.max())
    return float(middle[best[np.abs(middle[best] - 0.5).argmin()]])


_FEW_IMAGES = 5


@dataclass(frozen=True)
class SplitResults:
    """The numbers of one split.

    Attributes:
        images: Labelled images that were scored.
        unlabeled: Images that were scored but have no label; they count nowhere.
        units: Groups, pictures and single images that were resampled.
        grouped: Whether units hold several images.
        metrics: Name -> interval.
        per_class: Name -> one interval per class.
        support: int [K], labelled images of every class.
        confusion: int64 [K, K]; rows = true, columns = predicted.
    """

    images: int
    unlabeled: int
    units: int
    grouped: bool
    metrics: dict[str, Interval]
    per_class: dict[str, tuple[Interval, ...]]
    support: tuple[int, ...]
    confusion: np.ndarray


@dataclass(frozen=True)
class ClassificationResults:
    """All numbers of a classifier.

    Attributes:
        class_names: In the order of the scores' columns.
        decision: How scores became classes.
        splits: Split -> its numbers; train, validation, test, then others.
        resamples: Bootstrap samples behind every interval.
        level: Of confidence.
        seed: Of the resampling.
        remarks: Caveats for readers of the numbers, sentences.
    """

    class_names: tuple[str, ...]
    decision: Decision
    splits: dict[str, SplitResults]
    resamples: int
    level: float
    seed: int
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The numbers as JSON holds them; undefined ones are None."""
        threshold = asdict(self.decision)
        if self.decision.threshold is not None:
            threshold["positive"] = self.class_names[self.decision.positive]
        else:
            threshold = {"rule": "highest score"}
        return {
            "class_names": list(self.class_names),
            "decision": threshold,
            "intervals": {
                "level": self.level,
                "resamples": self.resamples,
                "seed": self.seed,
                "method": "percentile bootstrap; units are drawn within their class; score "
                "intervals where resampling shows no spread",
            },
            "splits": {name: self._split_json(split) for name, split in self.splits.items()},
            "remarks": list(self.remarks),
        }

    def _split_json(self, split: SplitResults) -> dict[str, Any]:
        return {
            "images": split.images,
            "unlabelled": split.unlabeled,
            "units": split.units,
            "grouped": split.grouped,
            "metrics": {name: i.to_json() for name, i in split.metrics.items()},
            "per_class": [
                {"class": name, "images": split.support[k]}
                | {metric: each[k].to_json() for metric, each in split.per_class.items()}
                for k, name in enumerate(self.class_names)
            ],
            "confusion_matrix": split.confusion.tolist(),
        }

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> "ClassificationResults":
        """Undoes `to_json`."""
        names, rule, how = facts["class_names"], facts["decision"], facts["intervals"]
        decision = Decision()
        if rule.get("threshold") is not None:
            decision = Decision(**{**rule, "positive": names.index(rule["positive"])})
        splits = {
            name: _split_from_json(split, how["level"]) for name, split in facts["splits"].items()
        }
        return ClassificationResults(
            tuple(names),
            decision,
            splits,
            how["resamples"],
            how["level"],
            how["seed"],
            tuple(facts["remarks"]),
        )


def evaluate_classifier(
    splits: Mapping[str, ScoredSplit],
    class_names: Sequence[str],
    *,
    criterion: Criterion = "youden",
    threshold: float | None = None,
    positive: str | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> ClassificationResults:
    """Every metric of every split from its scores.

    With two classes the decision threshold is chosen on the split `validation` and applied to all;
    without such a split it is 0.5, and a remark says so. With more classes the highest score wins.

    Args:
        splits: Name -> scores; `test` once, when all else is decided.
        class_names: K names in the order of the scores' columns.
        criterion: The criterion that the threshold is chosen by.
        threshold: Of the positive class; given, nothing is chosen.
        positive: The positive class of two; the second one if None.
        resamples: Bootstrap samples; 2,000 of 10,000 images take a few seconds.
        level: Of confidence.
        seed: Of the resampling.

    Returns:
        The numbers; splits without any label are left out, with a remark.

    Raises:
        ValueError: Scores of other classes, an unknown positive class, a threshold for other than
            two classes, or no labels at all.
    """
    names = tuple(class_names)
    for name, split in splits.items():
        if split.scores.shape[1] != len(names):
            raise ValueError(
                f"split {name!r} has scores of {split.scores.shape[1]} classes, not {len(names)}"
            )
    known = {name: splits[name].labeled() for name in _in_order(splits)}
    remarks = [f"{n}: no image has a label, so it is not measured." for n in known if not known[n]]
    known = {name: split for name, split in known.items() if len(split)}
    if not known:
        raise ValueError("no split has labels: nothing can be measured")
    decision, why = _decide(known, names, criterion, threshold, positive)
    remarks += why
    measured = {}
    for name, split in known.items():
        measured[name] = _measure(split, len(splits[name]), decision, resamples, level, seed)
        remarks += _cautions(name, measured[name], names, level)
    return ClassificationResults(names, decision, measured, resamples, level, seed, tuple(remarks))


def _measure(
    split: ScoredSplit, scored: int, decision: Decision, resamples: int, level: float, seed: int
) -> SplitResults:
    predicted = decision.classes(split.scores)
    units = split.units
    intervals = bootstrap_metrics(
        split.labels,
        split.scores,
        predicted,
        groups=units,
        resamples=resamples,
        level=level,
        seed=seed,
    )
    classes = split.scores.shape[1]
    return SplitResults(
        images=len(split),
        unlabeled=scored - len(split),
        units=len(set(units)) if units else len(split),
        grouped=units is not None,
        metrics=intervals.overall,
        per_class=intervals.per_class,
        support=tuple(np.bincount(split.labels, minlength=classes).tolist()),
        confusion=confusion_matrix(split.labels, predicted, classes),
    )


def _decide(
    splits: Mapping[str, ScoredSplit],
    names: tuple[str, ...],
    criterion: Criterion,
    threshold: float | None,
    positive: str | None,
) -> tuple[Decision, list[str]]:
    """The rule, and the remarks that it deserves."""
    if len(names) != 2:
        if threshold is not None or positive is not None:
            raise ValueError(f"a threshold needs two classes, not {len(names)}")
        return Decision(), []
    if positive is not None and positive not in names:
        raise ValueError(f"positive class {positive!r} is none of {', '.join(names)}")
    column = 1 if positive is None else names.index(positive)
    if threshold is not None or criterion == "fixed":
        return Decision(0.5 if threshold is None else threshold, column), []
    held_out = splits.get("validation")
    chosen, why = None, "is not there"
    if held_out is not None:
        positives = held_out.labels == column
        chosen = choose_threshold(positives, held_out.scores[:, column], criterion)
        why = "does not hold both classes"
    if chosen is None:
        return Decision(0.5, column), [
            f"The decision threshold is 0.5: the validation split {why}, and choosing it on test "
            "would not be honest."
        ]
    return Decision(chosen, column, criterion, "validation"), [
        f"The decision threshold ({names[column]!r} from {chosen:.4f}) was chosen on validation: "
        f"{CRITERIA[criterion]}. Numbers of validation that depend on it are a little too good."
    ]


def _cautions(
    name: str, split: SplitResults, class_names: tuple[str, ...], level: float
) -> list[str]:
    remarks = []
    accuracy = split.metrics["accuracy"].value
    if accuracy in {0.0, 1.0}:
        bound = wilson_interval(np.full(split.units, accuracy == 1), level)
        reach = f"down to {bound.low:.3f}" if accuracy else f"up to {bound.high:.3f}"
        remarks.append(
            f"{name}: {'all' if accuracy else 'no'} predictions are right, so resampling shows no "
            f"spread; Wilson's {level:.0%} interval of {split.units} independent answers reaches "
            f"{reach}."
        )
    absent = [k for k, n in zip(class_names, split.support, strict=True) if n == 0]
    if absent:
        remarks.append(f"{name}: no images of {_listed(absent)}.")
    few = [
        f"{k} ({n})" for k, n in zip(class_names, split.support, strict=True) if 0 < n < _FEW_IMAGES
    ]
    if few:
        remarks.append(
            f"{name}: very few images of {_listed(few)}; their intervals are too narrow to trust."
        )
    return remarks


def _listed(names: Sequence[str], limit: int = 8) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _in_order(splits: Mapping[str, ScoredSplit]) -> list[str]:
    first = [name for name in SPLITS if name in splits]
    return first + sorted(set(splits).difference(first))


def _interval_from_json(facts: Mapping[str, float | None], level: float) -> Interval:
    value, low, high = (
        math.nan if facts[name] is None else float(facts[name] or 0)
        for name in ("value", "low", "high")
    )
    return Interval(value, low, high, level)


def _split_from_json(facts: Mapping[str, Any], level: float) -> SplitResults:
    rows = facts["per_class"]
    per_class = [name for name in rows[0] if name not in {"class", "images"}]
    return SplitResults(
        images=facts["images"],
        unlabeled=facts["unlabelled"],
        units=facts["units"],
        grouped=facts["grouped"],
        metrics={k: _interval_from_json(v, level) for k, v in facts["metrics"].items()},
        per_class={
            name: tuple(_interval_from_json(row[name], level) for row in rows) for name in per_class
        },
        support=tuple(row["images"] for row in rows),
        confusion=np.array(facts["confusion_matrix"], dtype=np.int64),
    )
