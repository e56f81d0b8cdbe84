"""Finished runs with made-up numbers, as the tests of tables and page need them."""

import zlib
from typing import Any

import numpy as np

from simclr_tf.config.run_config import RunConfig
from simclr_tf.evaluation.features import Embeddings
from simclr_tf.evaluation.intervals import wilson_interval
from simclr_tf.sweeps.plan import PlannedRun
from simclr_tf.sweeps.results import RunScores

LABELS = np.arange(60) % 3


def finished(
    row: dict[str, Any], right: float | np.ndarray | None, *, untrained: bool = False, seed: int = 0
) -> RunScores:
    """A run of these flags whose k-NN is right for this share of 60 images, or for these."""
    rng = np.random.default_rng([seed, zlib.crc32(repr(row).encode())])
    hits: np.ndarray | None = None
    scores: dict[str, Any] = {}
    if right is not None:
        hits = rng.permutation(60) < 60 * right if isinstance(right, float) else right
        interval = wilson_interval(hits)
        for name in ("knn_accuracy", "linear_probe_accuracy"):
            scores |= {
                f"validation/{name}": interval.value,
                f"validation/{name}_low": interval.low,
                f"validation/{name}_high": interval.high,
            }
    config = RunConfig.from_values({**row, "seed": seed})
    texts = {name: str(value) for name, value in {**row, "seed": seed}.items()}
    name = ",".join(f"{k}={v}" for k, v in texts.items())
    features = rng.normal(size=(60, 8)).astype(np.float32)
    features[:, 0] += 3 * LABELS
    return RunScores(
        PlannedRun(f"untrained,{name}" if untrained else name, texts, (), config, untrained),
        {"eval_split": "validation", "num_eval_examples": 60, "num_train_examples": 90, **scores},
        loss=1.5 + seed,
        seconds=60.0,
        steps=100,
        held_out=Embeddings(
            features, LABELS if right is not None else -np.ones(60, int), np.arange(60)
        ),
        right=hits,
    )
