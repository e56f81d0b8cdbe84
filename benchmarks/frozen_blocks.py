"""What freezing saves: `python benchmarks/frozen_blocks.py`.

Fine-tunes a ResNet-18 at 64 px, batch 64, from decoded images in memory, frozen up to each block in
turn, and then with the frozen features computed once (--cache_frozen). A frozen beginning should
cost its forward pass and no backward pass; with the cache not even that. Beside the steps stands
the forward pass alone, which no step can undercut that sees the images.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from photographs import make_files
from train_step import seconds

from data_prep.manifest.scan import scan_folder
from data_prep.sources.manifest_source import ManifestSource
from simclr_tf.config.run_config import RunConfig
from simclr_tf.config.sections import MachineSettings
from simclr_tf.training.batches import training_batches
from simclr_tf.training.build import build_seeded, build_step, first_trained_stage, view_config
from simclr_tf.training.distribution import connect
from simclr_tf.training.frozen_features import feature_batches, frozen_features

SETTINGS = {
    "train_mode": "finetune",
    "resnet_depth": 18,
    "image_size": 64,
    "train_batch_size": 64,
    "random_crop": False,
    "horizontal_flip": False,
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "precision": "float32",
}


def step(source: ManifestSource, after_block: int, cached: bool) -> Callable[[], None]:
    """One training step, frozen up to a block."""
    values = {**SETTINGS, "fine_tune_after_block": after_block, "cache_frozen": cached}
    config = RunConfig.from_values(values)
    devices = connect(MachineSettings())
    model, parts = build_seeded(config, devices, source.channels, 10, source.num_examples)
    train_step = build_step(config, devices, model, parts, source.channels)
    views = view_config(config, source.channels)
    batch = config.train.train_batch_size
    if cached:
        known = frozen_features(model, source, views, devices, batch, first_trained_stage(model))
        iterator = iter(feature_batches(known, devices, batch, 0, 0))
    else:
        iterator = iter(training_batches(source, views, devices, batch, 0, 0))
    return lambda: train_step.run(iterator, 1) and None


def forward(source: ManifestSource) -> Callable[[], None]:
    """The forward pass alone, in inference mode."""
    config = RunConfig.from_values(SETTINGS)
    devices = connect(MachineSettings())
    model, _ = build_seeded(config, devices, source.channels, 10, source.num_examples)
    size, batch = config.views.image_size, config.train.train_batch_size
    images = tf.random.uniform([batch, size, size, source.channels])
    run = tf.function(lambda: model.forward(images, projection_layers="used").logits)
    return lambda: run() is None


def contenders(source: ManifestSource) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "all blocks train", step(source, -1, cached=False)
    for block in range(5):
        yield f"frozen up to block {block}", step(source, block, cached=False)
    for block in (2, 4):
        yield f"frozen up to block {block}, cached", step(source, block, cached=True)
    yield "forward pass alone", forward(source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int, default=8, help="steps of one repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a", "b"):
            Path(folder, name).mkdir()
            make_files(Path(folder, name), args.images // 2)
        source = ManifestSource(scan_folder(folder), tuple("abcdefghij"), cache="true")
        steps = dict(contenders(source))
        times: dict[str, list[float]] = {name: [] for name in steps}
        for one in steps.values():
            seconds(one, 3)  # traces, fills pipelines
        for _ in range(args.repetitions):
            for name, one in steps.items():
                times[name].append(seconds(one, args.steps))
    whole = times["all blocks train"]
    print(f"{'':30s}{'s/step':>9s}{'of whole':>10s}")
    for name, values in times.items():
        ratio = statistics.median(v / w for v, w in zip(values, whole, strict=True))
        print(f"{name:30s}{statistics.median(values):9.4f}{ratio:10.3f}")


if __name__ == "__main__":
    main()
