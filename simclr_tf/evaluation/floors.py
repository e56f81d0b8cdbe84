"""Floors under a classifier: what much simpler methods reach on the same images.

A network that is not above them has learnt nothing that pays, whatever its numbers look like.

    majority            always the most frequent class of the training images
    raw_pixels          logistic regression on 16 x 16 pixels
    untrained features  logistic regression on the features of the same network with fresh weights
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.page import Section, Table
from data_prep.phrases import counted
from simclr_tf.evaluation.bootstrap import bootstrap_metrics, metric_samples
from simclr_tf.evaluation.degenerate import classifier_ends
from simclr_tf.evaluation.intervals import (
    RESAMPLES,
    Difference,
    Interval,
    SampledMean,
    interval_cell,
    sampled_difference,
)
from simclr_tf.evaluation.linear_probe import DEFAULT_STRENGTHS, fit_linear_probe
from simclr_tf.evaluation.metrics import class_metrics, classification_metrics

PIXELS = 16
"""Side of the pictures that raw pixels are taken from."""

MAJORITY, RAW_PIXELS, UNTRAINED = "majority", "raw_pixels", "untrained features"
KNN_RAW_PIXELS, KNN_UNTRAINED = "k-NN of raw_pixels", "k-NN of untrained features"

WORDS = {
    MAJORITY: "always saying the most frequent class",
    RAW_PIXELS: f"logistic regression on {PIXELS} x {PIXELS} pixels",
    UNTRAINED: "a linear probe on untrained features",
    KNN_RAW_PIXELS: f"k-NN on {PIXELS} x {PIXELS} pixels",
    KNN_UNTRAINED: "k-NN on untrained features",
}

METRIC_WORDS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "roc_auc": "ROC AUC",
}

_MANY_CLASSES = 50  # from which on one strength has to do: the fits take long
_ONE_STRENGTH = (1e-2,)


def majority(labels: np.ndarray, num_classes: int, images: int) -> np.ndarray:
    """Class probabilities that the shares of the classes alone give for every image.

    Args:
        labels: Of the training images, int [m]; -1 = not known.
        num_classes: K.
        images: n.

    Returns:
        float64 [n, K], the same for every image. One is added to every count (Laplace's rule of
        succession): a class that was not seen is rare, not impossible, and the log loss is finite.
    """
    counts = np.bincount(labels[labels >= 0], minlength=num_classes) + 1.0
    shares: np.ndarray = np.tile(counts / counts.sum(), (images, 1))
    return shares


def probe_scores(
    train_x: np.ndarray, train_y: np.ndarray, x: np.ndarray, num_classes: int, seed: int = 0
) -> np.ndarray | None:
    """Class probabilities of a standardized logistic regression.

    Args:
        train_x: Features of the training images, float [m, D].
        train_y: Their classes int [m], all known.
        x: Features of the images to be scored, float [n, D].
        num_classes: K.
        seed: Of the held-out part that the regularization is chosen on.

    Returns:
        float64 [n, K]; None where it cannot be fitted: one class alone, or features that are not
        finite.
    """
    finite = np.isfinite(train_x).all() and np.isfinite(x).all()
    if len(np.unique(train_y)) < 2 or not finite:
        return None
    strengths = DEFAULT_STRENGTHS if num_classes <= _MANY_CLASSES else _ONE_STRENGTH
    probe = fit_linear_probe(
        train_x, train_y, num_classes=num_classes, strengths=strengths, seed=seed
    )
    return probe.predict_proba(x)


@dataclass(frozen=True)
class Floor:
    """One floor beside the network, on the same images.

    Attributes:
        name: `majority`, `raw_pixels` or `untrained features`.
        metrics: Its metrics with intervals.
        difference: Of the network less the floor, in the metric of the verdict.
    """

    name: str
    metrics: dict[str, Interval]
    difference: Difference


@dataclass(frozen=True)
class Verdict:
    """Comparison of a network with all of its floors.

    Attributes:
        split: That was scored.
        images: On how many of its images the network and the floors are compared.
        metric: By which.
        network: Its estimate on those images, with its interval.
        floors: All of them.
        what: That stands for the network, such as `k-NN on the features`; empty = the network.
    """

    split: str
    images: int
    metric: str
    network: Interval
    floors: tuple[Floor, ...]
    what: str = ""

    @property
    def above(self) -> bool:
        """True if the whole interval of every difference is above 0."""
        return all(floor.difference.low > 0 for floor in self.floors)

    @property
    def nearest(self) -> Floor:
        """The floor that the network is least sure to be above."""
        return min(self.floors, key=lambda floor: floor.difference.low)

    def sentence(self) -> str:
        """The verdict in a sentence, with numbers."""
        said = self._sentence()
        return f"{self.what}: {said[0].lower()}{said[1:]}" if self.what else said

    def _sentence(self) -> str:
        metric, floor = METRIC_WORDS[self.metric], self.nearest
        images = counted(self.images, f"{self.split} image")
        gap = floor.difference
        points = f"{_points(gap.value)} points [{_points(gap.low)}, {_points(gap.high)}]"
        if not self.above:
            return (
                f"Not above {WORDS[floor.name]} ({metric} {self.network.value:.2f} against "
                f"{floor.metrics[self.metric].value:.2f} on {images}, "
                f"difference {points})."
            )
        told = [f"{WORDS[f.name]} ({f.metrics[self.metric].value:.2f})" for f in self.floors]
        listed = f"{', '.join(told[:-1])} and {told[-1]}" if len(told) > 1 else told[0]
        return (
            f"Above {listed}: {metric} {self.network.value:.2f} on "
            f"{images}, {points} from the nearest."
        )

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON holds it."""
        return {
            "split": self.split,
            "images": self.images,
            "metric": self.metric,
            **({"what": self.what} if self.what else {}),
            "above": self.above,
            "sentence": self.sentence(),
            "network": self.network.to_json(),
            "floors": [
                {
                    "name": floor.name,
                    "metrics": {name: i.to_json() for name, i in floor.metrics.items()},
                    "difference": {
                        **floor.difference.to_json(), "p_value": floor.difference.p_value
                    },
                }
                for floor in self.floors
            ],
        }  # fmt: skip


def judge(
    split: str,
    labels: np.ndarray,
    scores: np.ndarray,
    predicted: np.ndarray,
    floors: Mapping[str, np.ndarray],
    *,
    metric: str = "accuracy",
    groups: Sequence[str] | np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    what: str = "",
) -> Verdict:
    """Compares a network with its floors on the same bootstrap samples of the same images.

    Args:
        split: Name of what was scored.
        labels: int [n], n > 0, all known.
        scores: float64 [n, K], of the network.
        predicted: int [n], its classes.
        floors: Name -> float64 [n, K], from `majority` and `probe_scores`; the highest score is
            the class.
        metric: `accuracy`, `balanced_accuracy` or `roc_auc`.
        groups: [n], which images belong together; None = each for itself.
        resamples: Bootstrap samples.
        seed: Of the resampling.
        what: See `Verdict`.
    """
    how: dict[str, Any] = {"groups": groups, "resamples": resamples, "seed": seed}
    network = _sampled(labels, scores, predicted, metric, how)
    found = []
    for name, own in floors.items():
        said = own.argmax(axis=1)
        gap = sampled_difference(network, _sampled(labels, own, said, metric, how))
        metrics = bootstrap_metrics(labels, own, said, **how).overall
        found.append(Floor(name, metrics, gap))
    return Verdict(split, len(labels), metric, network.interval(), tuple(found), what)


def _sampled(
    labels: np.ndarray, scores: np.ndarray, predicted: np.ndarray, metric: str, how: dict[str, Any]
) -> SampledMean:
    values = classification_metrics(labels, scores, predicted)
    groups = how["groups"]
    units = len(labels) if groups is None else len(set(groups))
    each = class_metrics(labels, scores, predicted)
    ends = classifier_ends(labels, predicted, values, each, units, 0.95)[0]
    samples = metric_samples(labels, scores, predicted, **how)
    return SampledMean(values[metric], samples.overall[metric], ends[metric])


def _points(share: float) -> str:
    """A difference of shares in whole percentage points, with its sign."""
    points = round(100 * share)
    return f"{points:+d}" if points else "0"


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
    """Section of a page: a row for each floor, with its metrics and its distance to the network."""
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
