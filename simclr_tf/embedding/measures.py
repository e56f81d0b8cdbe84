"""What features are worth where labels are known: k-NN and a linear probe, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold

from simclr_tf.embedding.settings import MeasureSettings
from simclr_tf.evaluation.blockwise import Features
from simclr_tf.evaluation.bootstrap import bootstrap_metrics
from simclr_tf.evaluation.features import UNLABELLED
from simclr_tf.evaluation.intervals import Interval, wilson_interval
from simclr_tf.evaluation.knn import knn_scores
from simclr_tf.evaluation.linear_probe import fit_linear_probe

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc")
TRAIN = "train"
_MOST = 50_000  # labelled images that neighbours are looked for among, or a probe is fitted to
_BLOCK = 8192
_FOLDS = 10


@dataclass(frozen=True)
class Labelled:
    """The labels of one column.

    Attributes:
        class_names: Sorted, K of them.
        labels: int64 [n], positions among them, -1 = not known.
        splits: One an image.
        units: int64 [n], what belongs together, see `Stored.units`; None = every image alone.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray
    splits: np.ndarray
    units: np.ndarray | None

    @staticmethod
    def of(texts: Sequence[str], splits: Sequence[str], units: np.ndarray | None) -> "Labelled":
        """From texts, "" = not known."""
        names = tuple(sorted(set(texts) - {""}))
        index = {name: k for k, name in enumerate(names)} | {"": UNLABELLED}
        labels = np.array([index[text] for text in texts], np.int64)
        return Labelled(names, labels, np.array(splits), units)

    def rows(self, split: str = "") -> np.ndarray:
        """Labelled images of a split, or of all: int64 [m]."""
        known = self.labels != UNLABELLED
        return np.flatnonzero(known & (self.splits == split) if split else known)

    def groups(self, rows: np.ndarray) -> np.ndarray | None:
        """`units` of some rows."""
        return None if self.units is None else self.units[rows]


@dataclass(frozen=True)
class Scored:
    """How well labels of some images were told.

    Attributes:
        method: `knn`, `linear_probe`, `knn_leave_one_out`, or where images form groups
            `knn_group_folds`.
        split: That was scored; "" = all labelled images.
        train_images: Labelled images that were learned from, of folds the fewest.
        images: Labelled images that were scored.
        metrics: By `METRICS`; intervals by bootstrap, of the accuracy by Wilson where images are
            independent of each other.
        rows: Which images, int64 [m].
        scores: Of each class, float64 [m, K].
    """

    method: str
    split: str
    train_images: int
    images: int
    metrics: dict[str, Interval]
    rows: np.ndarray = field(repr=False, compare=False)
    scores: np.ndarray = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """For `embedding.json`."""
        facts: dict[str, Any] = {"method": self.method}
        facts |= {"split": self.split} if self.split else {}
        facts |= {"train_images": self.train_images, "images": self.images}
        return facts | {name: value.to_json() for name, value in self.metrics.items()}


def measure(features: Features, known: Labelled, settings: MeasureSettings) -> list[Scored]:
    """Scores features against one column of labels.

    k-NN and the probe learn from labelled images of the split `train` and are scored on those of
    every other split. Beside them stands k-NN among all labelled images, each without itself; or,
    where images form groups, in ten folds that keep groups whole. Of more than 50,000 labelled
    images a seeded sample is learned from.

    Args:
        features: [n, d].
        known: The labels.
        settings: k, intervals, seed.

    Returns:
        The scores; none with fewer than two classes.
    """
    if len(known.class_names) < 2:
        return []
    scored = []
    train = _sample(known.rows(TRAIN), settings.seed)
    others = [s for s in _in_order(known.splits) if s != TRAIN and len(known.rows(s))]
    if len(np.unique(known.labels[train])) > 1 and others:
        x, y = features[train], known.labels[train]
        k, classes = settings.knn_neighbors, len(known.class_names)
        methods = {"knn": lambda z: knn_scores(x, y, z, k=k, num_classes=classes)}
        if settings.linear_probe:
            probe = fit_linear_probe(x, y, num_classes=classes, seed=settings.seed)
            methods["linear_probe"] = probe.predict_proba
        for method, scores in methods.items():
            for split in others:
                rows = known.rows(split)
                blocks = [rows[i : i + _BLOCK] for i in range(0, len(rows), _BLOCK)]
                found = np.concatenate([scores(features[block]) for block in blocks])
                scored.append(_score(method, split, len(train), rows, found, known, settings))
    return [*scored, *_among_all(features, known, settings)]


def _among_all(features: Features, known: Labelled, settings: MeasureSettings) -> list[Scored]:
    """k-NN among all labelled images: each without itself, or in folds that keep groups whole."""
    rows = _sample(known.rows(), settings.seed)
    x, y, groups = features[rows], known.labels[rows], known.groups(rows)
    k, classes = settings.knn_neighbors, len(known.class_names)
    if len(rows) < 3:
        return []
    if groups is None:
        scores = knn_scores(x, y, x, k=k, num_classes=classes, leave_one_out=True)
        return [_score("knn_leave_one_out", "", len(rows) - 1, rows, scores, known, settings)]
    folds = min(_FOLDS, len(np.unique(groups)))
    if folds < 2:
        return []
    scores, fewest = np.zeros((len(rows), classes)), len(rows)
    for train, test in GroupKFold(folds).split(x, y, groups):
        scores[test] = knn_scores(x[train], y[train], x[test], k=k, num_classes=classes)
        fewest = min(fewest, len(train))
    return [_score("knn_group_folds", "", fewest, rows, scores, known, settings)]


def _score(
    method: str,
    split: str,
    train_images: int,
    rows: np.ndarray,
    scores: np.ndarray,
    known: Labelled,
    settings: MeasureSettings,
) -> Scored:
    labels, predicted, groups = known.labels[rows], scores.argmax(axis=1), known.groups(rows)
    intervals = bootstrap_metrics(
        labels, scores, predicted, groups=groups, resamples=settings.bootstrap, seed=settings.seed
    )
    metrics = {name: intervals.overall[name] for name in METRICS}
    right = predicted == labels
    if groups is None:
        metrics["accuracy"] = wilson_interval(right)
    elif right.all() or not right.any():  # no sample shows any spread then
        metrics["accuracy"] = wilson_interval(np.full(len(np.unique(groups)), right[0]))
    return Scored(method, split, train_images, len(rows), metrics, rows, scores)


def _sample(rows: np.ndarray, seed: int) -> np.ndarray:
    """At most so many of the rows, in order."""
    if len(rows) <= _MOST:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, _MOST, replace=False))


def _in_order(splits: np.ndarray) -> list[str]:
    first = ("validation", "test")
    present = set(splits.tolist()) - {""}
    return [s for s in first if s in present] + sorted(present.difference(first))
