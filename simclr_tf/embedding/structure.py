"""What is to be seen in features without labels: clusters, neighbours, outliers, duplicates."""

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simclr_tf.embedding.settings import StructureSettings
from simclr_tf.embedding.stored import Stored
from simclr_tf.evaluation.blockwise import Nearest, NearPairs, Progress, near_pairs, nearest
from simclr_tf.evaluation.clustering import Clusters, choose_clusters, hdbscan, kmeans
from simclr_tf.evaluation.outliers import outlier_scores

log = logging.getLogger(__name__)

NOISE_NAME = "noise"


@dataclass
class Structure:
    """What was found.

    Attributes:
        clusters: By method.
        neighbours: Of every image; None = not looked for.
        outliers: float32 [n]; None = not looked for.
        pairs: Near duplicates; None = not looked for.
        silhouettes: By number of clusters, where the silhouette chose it.
        remarks: What was left out, sentences.
    """

    clusters: dict[str, Clusters] = field(default_factory=dict)
    neighbours: Nearest | None = None
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
    stored: Stored, settings: StructureSettings, seed: int, progress: Progress
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
        if settings.neighbours:
            found.neighbours = nearest(
                features, features, settings.neighbours, not_itself=True, progress=progress
            )
            if settings.outliers != "none":
                found.outliers = outlier_scores(found.neighbours, settings.outliers)
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


def _classes(stored: Stored) -> int:
    """Classes of the first column of labels that has two or more; 0 = there is none."""
    counts = (len(set(stored.columns[name]) - {""}) for name in stored.label_columns)
    return next((number for number in counts if number > 1), 0)


def _left_out(what: str, n: int) -> str:
    return f"{what} left out for {n} images (--compare_limit)"
