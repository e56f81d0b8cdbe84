"""Where the time of a whole `simclr-run` goes: `python benchmarks/whole_command.py`.

Runs the command as people do, in a process of its own, on 400x300 JPEG files in class folders with
the derived geology repository's flags, and splits its time into the steady steps and all the rest:
start, tracing, evaluation, export. On two idle cores that rest takes the derived repository 28 s.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from photographs import make_files

FLAGS = (
    "--mode=train_then_eval --train_mode=pretrain --resnet_depth=18 --image_size=64 "
    "--train_batch_size=64 --eval_batch_size=64 --use_blur=False --color_jitter_strength=0.5 "
    "--temperature=0.5 --weight_decay=1e-4 --learning_rate=1.0 --checkpoint_steps=10"
).split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", default="float32")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        images, run = Path(scratch, "images"), Path(scratch, "run")
        for name in ("a", "b", "c", "d"):
            (images / name).mkdir(parents=True)
            make_files(images / name, args.images // 4)
        command = [sys.executable, "-m", "simclr_tf.cli.run", *FLAGS]
        command += [f"--image_dir={images}", f"--model_dir={run}", f"--train_steps={args.steps}"]
        began = time.perf_counter()
        subprocess.run(
            [*command, f"--precision={args.precision}"],
            check=True,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        whole = time.perf_counter() - began
        with (run / "metrics.csv").open(newline="") as file:
            steps = [float(row["seconds"]) for row in csv.DictReader(file)]
    steady = statistics.median(steps[1:]) * len(steps)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"whole command                      {whole:7.1f} s")
    print(f"{len(steps)} steady steps                    {steady:7.1f} s")
    print(f"first step beyond a steady one     {steps[0] - statistics.median(steps[1:]):7.1f} s")
    print(f"all but the steady steps           {whole - steady:7.1f} s   (aim 14)")
    print(f"peak memory                        {peak:7.0f} MiB")


if __name__ == "__main__":
    main()
