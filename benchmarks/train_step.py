"""Speed of a training step, beside a bare Keras step: `python benchmarks/train_step.py`.

The flags are those of the derived geology repository: ResNet-18, 64 px, batch 64 (128 views), no
blur, from 400x300 JPEG files. Timed in turn, several times over:

* bare Keras: forward, backward and update of the same ResNet-18 in Keras layers, float32, on 128
  images that lie in memory; no augmentation, no projection head, no contrastive loss;
* our whole step, in float32 and in the precision that `auto` chooses, from JPEG files decoded at
  every step, and from decoded images kept in memory.

On an idle machine of two cores the derived repository's step takes 1.27 times the bare one.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from photographs import make_files

from data_prep.manifest.scan import scan_folder
from data_prep.sources.manifest_source import ManifestSource
from simclr_tf.config.run_config import RunConfig
from simclr_tf.config.sections import MachineSettings
from simclr_tf.training.batches import training_batches
from simclr_tf.training.build import build_model, build_training, view_config
from simclr_tf.training.distribution import choose_precision, connect
from simclr_tf.training.step import TrainStep

SETTINGS = {
    "resnet_depth": 18,
    "image_size": 64,
    "train_batch_size": 64,
    "use_blur": False,
    "color_jitter_strength": 0.5,
    "temperature": 0.5,
    "weight_decay": 1e-4,
    "learning_rate": 1.0,
}


def bare_resnet18(size: int) -> keras.Model:
    """SimCLR's ResNet-18 in plain Keras layers, with a linear head."""
    layers = keras.layers

    def conv_bn(x: keras.KerasTensor, filters: int, kernel: int, stride: int) -> keras.KerasTensor:
        x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    inputs = keras.Input((size, size, 3))
    x = layers.ReLU()(conv_bn(inputs, 64, 7, 2))
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for filters, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for block in range(2):
            step = stride if block == 0 else 1
            shortcut = conv_bn(x, filters, 1, step) if block == 0 else x
            y = layers.ReLU()(conv_bn(x, filters, 3, step))
            x = layers.ReLU()(layers.Add()([conv_bn(y, filters, 3, 1), shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def bare_step(size: int, images: int) -> Callable[[], None]:
    """One `train_on_batch` of plain Keras on images in memory."""
    model = bare_resnet18(size)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, jit_compile=False)
    x = np.random.default_rng(0).random((images, size, size, 3), np.float32)
    y = np.arange(images) % 10
    x, y = tf.constant(x), tf.constant(y)
    return lambda: model.train_on_batch(x, y) and None


def our_step(folder: str, precision: str, cache: str) -> Callable[[], None]:
    """One whole step of pretraining: files or memory, views, losses, gradients, update."""
    config = RunConfig.from_values({**SETTINGS, "precision": precision})
    devices = connect(MachineSettings())
    source = ManifestSource(scan_folder(folder), cache=cache)
    views = view_config(config, source.channels)
    keras.config.set_dtype_policy(choose_precision(precision, devices))
    with devices.strategy.scope():
        model = build_model(config, source.channels, num_classes=10)
        parts = build_training(config, model, source.num_examples)
    keras.config.set_dtype_policy("float32")
    step = TrainStep(model, parts.method, parts.optimizer, parts.weight_decay, views, devices)
    batch_size = config.train.train_batch_size
    batches = training_batches(source, views, devices, batch_size, seed=0, start_step=0)
    iterator = iter(batches)
    return lambda: step.run(iterator, 1) and None


def seconds(step: Callable[[], None], steps: int) -> float:
    """Mean seconds of some steps."""
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - began) / steps


def contenders(folder: str) -> Iterator[tuple[str, Callable[[], None]]]:
    size, batch = SETTINGS["image_size"], SETTINGS["train_batch_size"]
    yield "bare Keras, float32", bare_step(size, 2 * batch)
    for precision in ("float32", "auto"):
        for cache, where in (("false", "JPEG files"), ("true", "memory")):
            yield f"whole step, {precision}, {where}", our_step(folder, precision, cache)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--steps", type=int, default=8, help="steps of one repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), args.images)
        steps = dict(contenders(folder))
        for step in steps.values():
            seconds(step, 3)  # traces, compiles, fills pipelines and caches
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(args.repetitions):
            for name, step in steps.items():
                times[name].append(seconds(step, args.steps))
    report(times)


def report(times: dict[str, list[float]]) -> None:
    """Prints medians, and ratios to the bare step of the same repetition."""
    bare = times["bare Keras, float32"]
    batch = SETTINGS["train_batch_size"]
    print(f"{'':34s}{'s/step':>8s}{'images/s':>10s}{'of bare':>9s}")
    for name, values in times.items():
        middle = statistics.median(values)
        ratio = statistics.median(v / b for v, b in zip(values, bare, strict=True))
        print(f"{name:34s}{middle:8.3f}{batch / middle:10.0f}{ratio:9.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("aims: whole step over bare 0.90 in float32 from JPEG files; images/s 100 in float32 and")
    print(f"128 with auto (1.4 and 1.8 times 71). Peak memory of all together {peak:.0f} MiB.")


if __name__ == "__main__":
    main()
