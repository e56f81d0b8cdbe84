"""Suggestions of images to label next: few that represent much of an embedding."""

from typing import Literal

import numpy as np

from simclr_tf.evaluation.clustering import kmeans
from simclr_tf.evaluation.neighbors import Features, FeatureSubset, nearest, unit_blocks, unit_rows

Rule = Literal["farthest", "medoids"]


def suggest(
    features: Features, labeled: np.ndarray, count: int, by: Rule = "farthest", seed: int = 0
) -> np.ndarray:
    """Rows to label, the most useful first.

    Those without a label come first; only when they run out do others follow.

    Args:
        features: float [n, d].
        labeled: bool [n].
        count: Rows wanted.
        by: `farthest`, each the one farthest from all labelled and suggested ones (k-centre
            greedy; Sener and Savarese 2018, Active Learning for Convolutional Neural Networks);
            `medoids`, the middles of as many clusters, the largest first.
        seed: Of the first choice, and of k-means.

    Returns:
        int64 [at most count], each once.
    """
    chosen = np.zeros(0, np.int64)
    for candidates in (np.flatnonzero(~labeled), np.flatnonzero(labeled)):
        wanted = min(count - len(chosen), len(candidates))
        if wanted <= 0:
            continue
        if by == "medoids":
            found = candidates[kmeans(FeatureSubset(features, candidates), wanted, seed).medoids]
        else:
            covered = chosen if len(chosen) else np.flatnonzero(labeled)
            covered = covered[~np.isin(covered, candidates)]
            found = farthest_first(features, candidates, covered, wanted, seed)
        chosen = np.concatenate([chosen, found])
    return chosen


def farthest_first(
    features: Features, candidates: np.ndarray, covered: np.ndarray, count: int, seed: int = 0
) -> np.ndarray:
    """Candidates, each the one whose nearest covered or chosen row is the least alike.

    Args:
        features: float [n, d].
        candidates: int64 [m], rows to choose from, ascending.
        covered: int64 [c], rows that count as chosen; without any the first is drawn.
        count: At most m.
        seed: Of that draw.

    Returns:
        int64 [count]; of equally distant candidates the first.
    """
    pool = FeatureSubset(features, candidates)
    distance = np.full(len(candidates), np.inf, np.float32)
    if len(covered):
        distance = 1 - nearest(pool, FeatureSubset(features, covered), 1).similarities[:, 0]
    chosen: list[int] = []
    for _ in range(count):
        draw = not len(covered) and not chosen
        place = (
            int(np.random.default_rng(seed).integers(len(candidates)))
            if draw
            else int(distance.argmax())
        )
        chosen.append(place)
        center = unit_rows(pool[np.array([place])])[0]
        for start, block in unit_blocks(pool):
            rows = slice(start, start + len(block))
            distance[rows] = np.minimum(distance[rows], 1 - block @ center)
        distance[place] = -np.inf
    return candidates[np.array(chosen, np.int64)]
