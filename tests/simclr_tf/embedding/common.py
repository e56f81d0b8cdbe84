"""Small embeddings, for tests."""

from pathlib import Path
from typing import Any

import numpy as np

from data_prep.manifest.manifest import Manifest, Record
from simclr_tf.embedding.compute import join_shards
from simclr_tf.embedding.settings import EmbedConfig
from simclr_tf.embedding.shards import ShardPlan, open_shards
from simclr_tf.embedding.stored import (
    FEATURES,
    FeatureFile,
    StoredEmbedding,
    known_columns,
    write_facts,
)

QUICK: dict[str, Any] = {"bootstrap": 50, "explore": False, "eval_batch_size": 8}


def config(**values: Any) -> EmbedConfig:
    return EmbedConfig.from_values({**QUICK, **values})


def records(n: int, classes: tuple[str, ...] = ("a", "b", "c")) -> tuple[Record, ...]:
    """Labelled in turn; every fifth image is of test, the others of train."""
    return tuple(
        Record(
            f"{classes[i % len(classes)]}/image_{i:03d}.png" if classes else f"image_{i:03d}.png",
            label=classes[i % len(classes)] if classes else "",
            split="test" if i % 5 == 4 else "train",
        )
        for i in range(n)
    )


def blobs(n: int, classes: int = 3, d: int = 6, noise: float = 0.2, seed: int = 0) -> np.ndarray:
    """Features float32 [n, d]: directions about an axis a class, in turn."""
    rng = np.random.default_rng(seed)
    return (np.eye(d)[np.arange(n) % classes] + rng.normal(0, noise, (n, d))).astype(np.float32)


def store(
    folder: Path, features: np.ndarray, images: Manifest, shard_images: int = 7, **facts: Any
) -> StoredEmbedding:
    """An embedding as it is after the shards were joined, before anything is said of it."""
    folder.mkdir(parents=True)
    plan = ShardPlan(len(features), shard_images, "key")
    with open_shards(folder.with_name(f"{folder.name}_shards"), plan) as shards:
        for shard in range(plan.shards):
            shards.write(shard, features[list(plan.rows(shard))], {})
        kept = join_shards(shards, images, folder)
    facts = {
        "encoder": {"source": "encoder.keras", "sha256": "0"},
        "endpoint": "final_avg_pool",
        "dimensions": features.shape[1],
        "images": len(kept),
        "expert_columns": [],
        **facts,
    }
    write_facts(folder, facts)
    return StoredEmbedding(folder, FeatureFile(folder / FEATURES), kept, known_columns(kept), facts)
