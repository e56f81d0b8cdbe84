"""Speed of the input pipeline, beside decoding alone: `python benchmarks/input_pipeline.py`.

Makes its own JPEG files (400x300 photographs-to-be, quality 90), then times, in turn and several
times over,

* decoding alone,
* the host part: decode, two random crops, bicubic resize to 224 px, flip, uint8,
* the whole pipeline: the host part, and colour jitter, grey and blur as the training step does
  them, on whatever device TensorFlow computes on.

--source=tfrecord packs the files into TFRecord shards first; --source=tfrecord_stream reads those
as a set that is larger than the memory for shuffling.

The ratios to decoding alone compare machines. On two cores, SimCLR's own TensorFlow pipeline with
blur makes 213 to 245 images/s, 0.095 of decoding alone.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from photographs import HEIGHT, WIDTH, make_files

from data_prep.augment.views import ViewConfig, device_views, example_seed, host_views
from data_prep.manifest.scan import scan_folder
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.source import PARALLEL_CALLS, Source
from data_prep.sources.streams import TFRecordSource
from data_prep.sources.tfrecord_writer import write_shards

AIMS = {"decoding alone": (None, None), "host part": (730, 0.28), "whole pipeline": (365, 0.14)}


class Timing(NamedTuple):
    """One run over all images."""

    images_per_second: float
    cpu_ms_per_image: float


def stages(source: Source, config: ViewConfig, batch_size: int) -> dict[str, Callable[[], None]]:
    """What is timed: each entry goes once over all images."""

    def elements() -> tf.data.Dataset:
        endless = source.elements(seed=0, shuffle=True, start=0, batch_size=batch_size)
        return endless.take(source.num_examples)

    def views(element: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        seed = example_seed(0, element["epoch"], element["index"])
        return host_views(source.decode(element), seed, config)

    def mapped(function: Callable[..., object]) -> tf.data.Dataset:
        return elements().map(function, num_parallel_calls=PARALLEL_CALLS, deterministic=True)

    @tf.function
    def on_device(pixels: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(device_views(pixels, draws, config))

    decoded = mapped(source.decode).prefetch(4)
    batches = mapped(views).batch(batch_size, drop_remainder=True).prefetch(2)

    def decode() -> None:
        for _ in decoded:
            pass

    def host() -> None:
        for _ in batches:
            pass

    def whole() -> None:
        for pixels, draws in batches:
            result = on_device(pixels, draws)
        result.numpy()  # waits for an asynchronous device

    return dict(zip(AIMS, (decode, host, whole), strict=True))


def open_source(kind: str, folder: Path) -> Source:
    """The files of a folder, as they are or packed into shards beside them."""
    manifest = scan_folder(folder / "images")
    if kind == "folder":
        return ManifestSource(manifest, cache="false")
    write_shards(manifest, folder / "shards", 8)
    source = TFRecordSource(folder / "shards")
    if kind == "tfrecord_stream":
        source.shuffle_buffer = source.num_examples // 4
    return source


def timed(run: Callable[[], None], count: int) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Timing(count / wall, 1000 * cpu / count)


def peak_memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(timings: dict[str, list[Timing]], peaks: dict[str, float]) -> str:
    """The table: medians and bests over the repetitions, ratios within each repetition."""
    base = timings["decoding alone"]
    head = ("", "images/s", "best", "CPU ms", "ratio", "by CPU", "aim/s", "aim ratio", "peak MiB")
    lines = ["{:16s}{:>10s}{:>8s}{:>8s}{:>8s}{:>8s}{:>8s}{:>11s}{:>10s}".format(*head)]
    for name, rows in timings.items():
        speeds = [row.images_per_second for row in rows]
        cpu = statistics.median(row.cpu_ms_per_image for row in rows)
        base_cpu = statistics.median(row.cpu_ms_per_image for row in base)
        pairs = zip(speeds, base, strict=True)
        ratio = statistics.median(speed / b.images_per_second for speed, b in pairs)
        aim, aim_ratio = AIMS[name]
        lines.append(
            f"{name:16s}{statistics.median(speeds):10.0f}{max(speeds):8.0f}{cpu:8.2f}{ratio:8.3f}"
            f"{base_cpu / cpu:8.3f}{aim or '-':>8}{aim_ratio or '-':>11}{peaks[name]:10.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--source", choices=("folder", "tfrecord", "tfrecord_stream"), default="folder"
    )
    args = parser.parse_args()
    count = args.images // args.batch_size * args.batch_size
    if count == 0:
        parser.error("--images must be at least --batch_size")
    config = ViewConfig(args.image_size, 3)
    timings: dict[str, list[Timing]] = {name: [] for name in AIMS}
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "images").mkdir()
        make_files(Path(folder) / "images", count)
        source = open_source(args.source, Path(folder))
        runs = stages(source, config, args.batch_size)
        for name, run in runs.items():  # once for tracing, compiling and the files' cache
            start = time.perf_counter()
            run()
            peaks[name] = peak_memory_mib()
            print(f"{name}: first pass {time.perf_counter() - start:.1f} s", flush=True)
        for _ in range(args.repetitions):
            for name, run in runs.items():
                timings[name].append(timed(run, count))
    print(
        f"\n{count} JPEG files of {WIDTH}x{HEIGHT} ({args.source}), {config.num_views} views of "
        f"{config.image_size} px, {os.cpu_count()} cores, "
        f"median of {args.repetitions} repetitions in turn\n"
    )
    print(report(timings, peaks))


if __name__ == "__main__":
    main()
