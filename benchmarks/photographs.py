"""JPEG files that decode like photographs, made on the spot, for the benchmarks."""

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH, QUALITY = 300, 400, 90


def photograph(seed: int) -> np.ndarray:
    """Smooth coloured shapes at three scales with a sensor's noise, uint8 [300, 400, 3]."""
    generator = np.random.default_rng(seed)
    picture = generator.normal(0, 6, (HEIGHT, WIDTH, 3))
    for scale, weight in ((100, 0.5), (30, 0.3), (8, 0.2)):
        coarse = generator.integers(0, 256, (HEIGHT // scale + 1, WIDTH // scale + 1, 3))
        smooth = Image.fromarray(coarse.astype(np.uint8)).resize((WIDTH, HEIGHT), Image.BICUBIC)
        picture += weight * np.asarray(smooth, np.float64)
    return np.clip(picture, 0, 255).astype(np.uint8)


def make_files(folder: Path, count: int) -> None:
    """Writes `count` JPEG files of quality 90 into the folder."""
    for i in range(count):
        Image.fromarray(photograph(i)).save(folder / f"{i:05d}.jpg", quality=QUALITY)
