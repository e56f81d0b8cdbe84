"""How fast a large set is checked and split, and in how much memory.

    python benchmarks/check_and_split.py --images=50000

makes that many JPEG files of 320 x 240 pixels, all different, in a temporary folder (some 12 KB
each) and runs `simclr-check` and `simclr-split` on them as whole processes. Decoding alone, with
all processors, is the mark to compare with.
"""

import argparse
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10
SIZE = (320, 240)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as temporary:
        folder, out = Path(temporary) / "images", Path(temporary)
        files = make_images(folder, images)
        decoding = decode_all(files)
        rows = [("decoding alone", decoding, 0.0)]
        for name, arguments in (
            ("simclr-check", ["check", f"--output={out / 'check'}"]),
            ("simclr-check, no look-alikes", ["check", "--near_distance=-1"]),
            ("simclr-split, hashes, look-alikes", ["split", f"--output={out / 'near.csv'}"]),
            (
                "simclr-split, hashes",
                ["split", "--near_duplicates=ignore", f"--output={out / 'plain.csv'}"],
            ),
        ):
            command, *flags = arguments
            extra = ["--ratios=train:0.6,validation:0.3,test:0.1"] if command == "split" else []
            rows.append((name, *run([command, f"--image_dir={folder}", *flags, *extra])))
    print(f"{images} images, {os.cpu_count()} processors")
    print(f"{'':36}{'seconds':>9}{'images/s':>10}{'of decoding':>13}{'peak MiB':>10}")
    for name, seconds, peak in rows:
        memory = f"{peak:10.0f}" if peak else " " * 10
        print(f"{name:36}{seconds:9.1f}{images / seconds:10.0f}{seconds / decoding:13.2f}{memory}")


def make_images(folder: Path, number: int) -> list[Path]:
    """Smooth random pictures; the look of each depends on its number alone."""
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)

    def make(index: int) -> Path:
        rng = np.random.default_rng(index)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        stream = io.BytesIO()
        coarse.resize(SIZE, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        file = folder / f"class{index % CLASSES}" / f"{index:06d}.jpg"
        file.write_bytes(stream.getvalue())
        return file

    with ThreadPoolExecutor() as pool:
        return list(pool.map(make, range(number)))


def decode_all(files: list[Path]) -> float:
    def decode(file: Path) -> None:
        with Image.open(file) as image:
            image.load()

    began = time.perf_counter()
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(decode, files):
            pass
    return time.perf_counter() - began


def run(arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak memory (MiB) of a command and its processes."""
    command, *flags = arguments
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", f"data_prep.cli.{command}", *flags],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # The largest of all children so far: a smaller one later leaves no trace of its own.
    return seconds, peak / 1024 if peak > before else 0.0


if __name__ == "__main__":
    main()
