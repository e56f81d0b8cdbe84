"""Memory that storing and joining features takes: `python benchmarks/embed_memory.py`.

Writes synthetic features shard by shard, joins them and writes every format, each size in a process
of its own, without a network and without measures. What should not grow with the number of images
is the memory beyond their names: features of 200,000 images of 128 numbers alone are 98 MiB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from data_prep.manifest.manifest import Manifest, Record
from simclr_tf.embedding.compute import join_shards, write_archive
from simclr_tf.embedding.shards import ShardPlan, open_shards
from simclr_tf.embedding.stored import (
    FEATURES,
    PARQUET,
    TABLE,
    FeatureFile,
    StoredEmbedding,
    known_columns,
    write_parquet,
    write_rows,
)
from simclr_tf.evaluation.neighbors import nearest


def peak() -> float:
    """Largest resident size so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def store(n: int, d: int) -> tuple[float, float, float, float]:
    """Peak before, with the names of n images, after all files are written (MiB); and seconds."""
    before = peak()
    rows = (Record(f"class_{i % 10}/image_{i:07d}.png", f"class_{i % 10}", "train")
            for i in range(n))  # fmt: skip
    images = Manifest(tuple(rows), "/images")
    columns = known_columns(images)
    names, began = peak(), time.perf_counter()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "out")
        made.mkdir()
        plan = ShardPlan(n, 2048, "key")
        with open_shards(Path(folder, "target"), plan) as shards:
            for shard in range(plan.shards):
                features = rng.normal(size=(len(plan.rows(shard)), d)).astype(np.float32)
                shards.write(shard, features, {})
            kept = join_shards(shards, images, made)
        file = FeatureFile(made / FEATURES)
        stored = StoredEmbedding(made, file, kept, columns, {})
        write_archive(made / "embedding.npz", stored)
        write_rows(made / TABLE, columns)
        write_parquet(made / PARQUET, columns, file, file.dtype)
        nearest(file[:1000], file, 7)
    return before, names, peak(), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="*", default=[20_000, 200_000])
    parser.add_argument("--dimensions", type=int, default=128)
    args = parser.parse_args()
    print(f"{'images':>9s}{'features':>11s}{'imports':>10s}{'names':>9s}{'rest':>9s}{'peak':>9s}"
          f"{'seconds':>9s}")  # fmt: skip
    for n in args.images:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            before, names, after, seconds = pool.apply(store, (n, args.dimensions))
        size = n * args.dimensions * 4 / 2**20
        print(
            f"{n:9d}{size:8.0f}MiB{before:7.0f}MiB{names - before:6.0f}MiB{after - names:6.0f}MiB"
            f"{after:6.0f}MiB{seconds:9.1f}"
        )


if __name__ == "__main__":
    main()
