"""Floors under an embedding: the same measures on raw pixels and on untrained features.

    floors.npz   the features of the floors, of all images or of a sample

They are computed with the embedding, for labels that come later are measured against them too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from simclr_tf.embedding.measures import TRAIN, Labelled, Scored, measure
from simclr_tf.embedding.settings import MeasureSettings
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
    """What simpler methods see of an embedding's images.

    Attributes:
        rows: Which images, int64 [m], rising.
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
        """What `save` wrote; None where there is nothing to be read."""
        try:
            with np.load(folder / FILE) as stored:
                pixels, untrained = (
                    stored[name].astype(np.float32) for name in ("pixels", "untrained")
                )
                return FloorFeatures(stored["rows"], pixels, untrained)
        except (OSError, ValueError, KeyError):
            return None


def floor_verdict(
    scored: Sequence[Scored], known: Labelled, floors: FloorFeatures, settings: MeasureSettings
) -> Verdict | None:
    """Whether the features are above the floors, for one column of labels.

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
    part = Labelled(
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
