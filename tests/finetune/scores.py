"""Made-up scores of splits, for the tests of reports."""

import numpy as np

from finetune.report.scored_split import ScoredSplit
from simclr_tf.evaluation.metrics import softmax


def scored(
    split: str,
    n: int = 60,
    classes: int = 3,
    *,
    seed: int = 0,
    skill: float = 1.5,
    groups: bool = False,
    unlabeled: int = 0,
) -> ScoredSplit:
    """Scores that are right more often the more skill there is."""
    rng = np.random.default_rng(sum(map(ord, split)) + seed)
    labels = np.arange(n, dtype=np.int64) % classes
    scores = softmax(skill * np.eye(classes)[labels] + rng.normal(size=(n, classes)))
    labels[:unlabeled] = -1
    names = tuple(f"{split} {i // 4}" for i in range(n)) if groups else None
    return ScoredSplit(split, tuple(f"{split}/{i}.png" for i in range(n)), labels, scores, names)
