"""What micro-batches save and cost: `python benchmarks/micro_batches.py`.

Pretrains a ResNet-18 at 64 px by SimCLR, from decoded images in memory, with the whole batch at
once, with the same batch in micro-batches (--microbatch), and with a batch as small as those. Each
runs in a process of its own, whose peak of resident memory is read from the system. Beside the
time of an image stands the processors' own time, which other work on the machine does not stretch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SETTINGS = {
    "resnet_depth": 18,
    "image_size": 64,
    "use_blur": False,
    "color_jitter_strength": 0.5,
    "learning_rate": 0.1,
    "precision": "float32",
}
IMAGES = 128  # that the batch is drawn from, time and again


def measure(folder: str, batch: int, microbatch: int, steps: int) -> dict[str, float]:
    """Peak memory in MiB, before the first step and in all; seconds of a step, by both clocks."""
    from data_prep.manifest.scan import scan_folder
    from data_prep.sources.manifest_source import ManifestSource
    from simclr_tf.config.run_config import RunConfig
    from simclr_tf.training.batches import PREFETCH_LARGE, training_batches
    from simclr_tf.training.build import build_seeded, build_step, view_config
    from simclr_tf.training.distribution import connect

    values = {**SETTINGS, "train_batch_size": batch, "microbatch": microbatch}
    config = RunConfig.from_values(values)
    devices = connect(config.machine)
    source = ManifestSource(scan_folder(folder), cache="true")
    model, parts = build_seeded(config, devices, source.channels, 0, source.num_examples)
    step = build_step(config, devices, model, parts, source.channels)
    views = view_config(config, source.channels)
    batches = training_batches(source, views, devices, batch, 0, 0, prefetch=PREFETCH_LARGE)
    iterator = iter(batches)
    before = peak()
    step.run(iterator, 1)  # traces, fills the cache of images
    began, busy = time.perf_counter(), time.process_time()
    step.run(iterator, steps)
    seconds, processors = time.perf_counter() - began, time.process_time() - busy
    times = {"seconds": seconds / steps, "processors": processors / steps}
    return {"before": before, "peak": peak(), **times}


def peak() -> float:
    """Most memory that the process has had so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--microbatch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2, help="timed steps")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        folder, batch, microbatch = args.measure
        print(json.dumps(measure(folder, int(batch), int(microbatch), args.steps)))
        return
    from photographs import make_files

    cases = {
        f"batch {args.batch} at once": (args.batch, 0),
        f"batch {args.batch} in micro-batches of {args.microbatch}": (args.batch, args.microbatch),
        f"batch {args.microbatch} at once": (args.microbatch, 0),
    }
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), IMAGES)
        for name, (batch, microbatch) in cases.items():
            command = [sys.executable, __file__, "--measure", folder, str(batch), str(microbatch)]
            command += ["--steps", str(args.steps)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[name] = {**json.loads(output.splitlines()[-1]), "batch": batch}
    print(f"{'':38s}{'peak MiB':>10s}{'of the step':>13s}{'ms/image':>10s}{'CPU ms':>8s}")
    for name, m in found.items():
        own = m["peak"] - m["before"]
        wall, processors = (1000 * m[clock] / m["batch"] for clock in ("seconds", "processors"))
        print(f"{name:38s}{m['peak']:10.0f}{own:13.0f}{wall:10.2f}{processors:8.2f}")


if __name__ == "__main__":
    main()
