"""Measures of features: k-NN and a linear probe with labels; clusters and outliers without.

The features of the floors, of all images or of a sample, are computed with the embedding and kept
in its folder as `floors.npz`, because labels that come later are measured against them too.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold

from simclr_tf.embedding.settings import MeasureSettings, StructureSettings
from simclr_tf.embedding.stored import StoredEmbedding
from simclr_tf.evaluation.bootstrap import bootstrap_metrics
from simclr_tf.evaluation.clustering import (
    Clusters,
    choose_clusters,
    hdbscan,
    kmeans,
    outlier_scores,
)
from simclr_tf.evaluation.features import UNLABELED
from simclr_tf.evaluation.floors import (
    KNN_RAW_PIXELS,
    KNN_UNTRAINED,
    MAJORITY,
    RAW_PIXELS,
    UNTRAINED,
    Verdict,
    judge,
    majority,
)
from simclr_tf.evaluation.intervals import Interval, wilson_interval
from simclr_tf.evaluation.linear_probe import fit_linear_probe
from simclr_tf.evaluation.neighbors import (
    Features,
    Nearest,
    NearPairs,
    Progress,
    knn_scores,
    near_pairs,
    nearest,
)

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc")
TRAIN = "train"
_MOST = 50_000  # labelled images that neighbours are looked for among, or a probe is fitted to
_BLOCK = 8192
_FOLDS = 10


@dataclass(frozen=True)
class LabelColumn:
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
    def of(texts: Sequence[str], splits: Sequence[str], units: np.ndarray | None) -> "LabelColumn":
        """Makes labels from one text for each image, "" = not known."""
        names = tuple(sorted(set(texts) - {""}))
        index = {name: k for k, name in enumerate(names)} | {"": UNLABELED}
        labels = np.array([index[text] for text in texts], np.int64)
        return LabelColumn(names, labels, np.array(splits), units)

    def rows(self, split: str = "") -> np.ndarray:
        """Labelled images of a split, or of all: int64 [m]."""
        known = self.labels != UNLABELED
        return np.flatnonzero(known & (self.splits == split) if split else known)

    def groups(self, rows: np.ndarray) -> np.ndarray | None:
        """`units` of some rows."""
        return None if self.units is None else self.units[rows]


@dataclass(frozen=True)
class LabelScores:
    """Scores of one method that predicts labels of some images.

    Attributes:
        method: `knn`, `linear_probe`, `knn_leave_one_out`, or where images form groups
            `knn_group_folds`.
        split: That was scored; "" = all labelled images.
        train_images: Labelled images that were learned from, of folds the fewest.
        images: Labelled images that were scored.
        metrics: By `METRICS`; intervals by bootstrap, of the accuracy by Wilson where images are
            independent of each other.
        rows: Rows of the images, int64 [m].
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


def measure(features: Features, known: LabelColumn, settings: MeasureSettings) -> list[LabelScores]:
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


def _among_all(
    features: Features, known: LabelColumn, settings: MeasureSettings
) -> list[LabelScores]:
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
    known: LabelColumn,
    settings: MeasureSettings,
) -> LabelScores:
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
    return LabelScores(method, split, train_images, len(rows), metrics, rows, scores)


def _sample(rows: np.ndarray, seed: int) -> np.ndarray:
    """All rows, or a seeded sample of `_MOST` of them in ascending order."""
    if len(rows) <= _MOST:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, _MOST, replace=False))


def _in_order(splits: np.ndarray) -> list[str]:
    first = ("validation", "test")
    present = set(splits.tolist()) - {""}
    return [s for s in first if s in present] + sorted(present.difference(first))


log = logging.getLogger(__name__)

NOISE_NAME = "noise"


@dataclass
class Structure:
    """Clusters, neighbours, outliers and near duplicates of an embedding.

    Attributes:
        clusters: By method.
        neighbors: Of every image; None = not looked for.
        outliers: float32 [n]; None = not looked for.
        pairs: Near duplicates; None = not looked for.
        silhouettes: By number of clusters, where the silhouette chose it.
        remarks: What was left out, sentences.
    """

    clusters: dict[str, Clusters] = field(default_factory=dict)
    neighbors: Nearest | None = None
    outliers: np.ndarray | None = None
    pairs: NearPairs | None = None
    silhouettes: dict[int, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def columns(self) -> dict[str, list[str] | np.ndarray]:
        """Columns of the table: the cluster of each image by each method, and its outlier score."""
        columns: dict[str, list[str] | np.ndarray] = {
            method: [NOISE_NAME if c < 0 else str(c) for c in clusters.labels.tolist()]
            for method, clusters in self.clusters.items()
        }
        return columns if self.outliers is None else columns | {"outlier": self.outliers}

    def to_json(self) -> dict[str, Any]:
        """For `embedding.json`."""
        facts: dict[str, Any] = {
            "clusters": {
                method: {
                    "clusters": len(clusters),
                    "noise": int((clusters.labels < 0).sum()),
                }
                for method, clusters in self.clusters.items()
            }
        }
        if self.silhouettes:
            facts["silhouette"] = {str(k): value for k, value in self.silhouettes.items()}
        if self.pairs:
            facts["near_duplicates"] = {
                "pairs": self.pairs.total,
                "listed": len(self.pairs.pairs),
            }
        return facts


def find_structure(
    stored: StoredEmbedding, settings: StructureSettings, seed: int, progress: Progress
) -> Structure:
    """Clusters, neighbours, outliers and near duplicates, as far as the settings ask for them.

    Args:
        stored: The embedding.
        settings: What to look for.
        seed: Of the clusters.
        progress: Called with (images compared, images in all).
    """
    found, features, n = Structure(), stored.features, len(stored)
    if settings.kmeans and n > 1:
        number = settings.clusters or _classes(stored)
        if not number:
            number, found.silhouettes = choose_clusters(features, seed)
        found.clusters["kmeans"] = kmeans(features, min(number, n), seed)
    if settings.hdbscan:
        if n <= max(settings.compare_limit // 5, 1):
            found.clusters["hdbscan"] = hdbscan(features, settings.min_cluster_size, seed)
        else:
            found.remarks.append(_left_out("HDBSCAN", n))
    if n > settings.compare_limit:
        found.remarks.append(_left_out("neighbours, outliers and near duplicates", n))
    elif n > 1:
        if settings.neighbors:
            found.neighbors = nearest(
                features, features, settings.neighbors, not_itself=True, progress=progress
            )
            if settings.outliers != "none":
                found.outliers = outlier_scores(found.neighbors, settings.outliers)
        if settings.near_duplicates:
            found.pairs = near_pairs(
                features, settings.near_duplicates, settings.most_pairs, progress
            )
            if found.pairs.total > settings.most_pairs:
                found.remarks.append(
                    f"{found.pairs.total} pairs of images have a cosine of "
                    f"{settings.near_duplicates:g} or more; the {settings.most_pairs} most alike "
                    "are listed (--most_pairs, --near_duplicates)"
                )
    return found


def _classes(stored: StoredEmbedding) -> int:
    """Number of classes in the first column of labels that has two or more; 0 without one."""
    counts = (len(set(stored.columns[name]) - {""}) for name in stored.label_columns)
    return next((number for number in counts if number > 1), 0)


def _left_out(what: str, n: int) -> str:
    return f"{what} left out for {n} images (--compare_limit)"


FILE = "floors.npz"
_METHODS = {
    "linear_probe": "A linear probe on the features",
    "knn": "k-NN on the features",
    "knn_group_folds": "k-NN on the features, in folds of whole groups",
    "knn_leave_one_out": "k-NN on the features, each image without itself",
}
"""By what embeddings are judged: the first method that there is."""


@dataclass(frozen=True)
class FloorFeatures:
    """Features of an embedding's images that simpler methods work on.

    Attributes:
        rows: Rows of the images, int64 [m], rising.
        pixels: Their raw pixels, float [m, D].
        untrained: Features of the network with fresh weights, float [m, E].
    """

    rows: np.ndarray
    pixels: np.ndarray
    untrained: np.ndarray

    def save(self, folder: Path) -> None:
        """Writes `floors.npz`."""
        np.savez(
            folder / FILE,
            rows=self.rows,
            pixels=self.pixels.astype(np.float16),
            untrained=self.untrained.astype(np.float16),
        )

    @staticmethod
    def load(folder: Path) -> "FloorFeatures | None":
        """Reads what `save` wrote; None if the file is missing or cannot be read."""
        try:
            with np.load(folder / FILE) as stored:
                pixels, untrained = (
                    stored[name].astype(np.float32) for name in ("pixels", "untrained")
                )
                return FloorFeatures(stored["rows"], pixels, untrained)
        except (OSError, ValueError, KeyError):
            return None


def floor_verdict(
    scored: Sequence[LabelScores],
    known: LabelColumn,
    floors: FloorFeatures,
    settings: MeasureSettings,
) -> Verdict | None:
    """Judges whether the features are above the floors, for one column of labels.

    Args:
        scored: What `measure` says of the embedding.
        known: The labels.
        floors: The features of the floors.
        settings: Of the measures.

    Returns:
        The verdict of the test images, or of what there is in their place; None without a score.
    """
    ranked = [s for method in _METHODS for s in scored if s.method == method]
    ranked.sort(key=lambda s: s.split not in ("test", ""))
    ranked.sort(key=lambda s: list(_METHODS).index(s.method))
    if not ranked:
        return None
    network = ranked[0]
    probe = network.method == "linear_probe"
    part = LabelColumn(
        known.class_names,
        known.labels[floors.rows],
        known.splits[floors.rows],
        None if known.units is None else known.units[floors.rows],
    )
    few = replace(settings, linear_probe=probe, bootstrap=0)
    names = (RAW_PIXELS, UNTRAINED) if probe else (KNN_RAW_PIXELS, KNN_UNTRAINED)
    told: dict[str, np.ndarray] = {}
    rows = np.zeros(0, np.int64)
    for name, features in zip(names, (floors.pixels, floors.untrained), strict=True):
        kind = (network.method, network.split)
        own = [s for s in measure(features, part, few) if (s.method, s.split) == kind]
        if own:
            rows, told[name] = floors.rows[own[0].rows], own[0].scores
    place = {row: i for i, row in enumerate(network.rows.tolist())}
    if not told or any(row not in place for row in rows.tolist()):
        return None
    learned = part.labels[part.rows(TRAIN)] if network.split else part.labels[part.rows()]
    told = {MAJORITY: majority(learned, len(known.class_names), len(rows)), **told}
    scores = network.scores[[place[row] for row in rows.tolist()]]
    return judge(
        network.split or "labelled", known.labels[rows], scores, scores.argmax(axis=1), told,
        groups=known.groups(rows), resamples=max(settings.bootstrap, 200), seed=settings.seed,
        what=_METHODS[network.method],
    )  # fmt: skip
