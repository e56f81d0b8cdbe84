"""Small images with something to learn in them, made on the spot."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("checks", "dots", "stripes")


def picture(kind: str, size: int, rng: np.random.Generator, channels: int = 3) -> np.ndarray:
    """A noisy pattern [size, size, channels], uint8: stripes, checks or dots of random phase."""
    y, x = np.mgrid[:size, :size] + rng.uniform(0, size, 2)[:, None, None]
    wave = 2 * np.pi / (size / 4)
    if kind == "stripes":
        pattern = np.sin(wave * y)
    elif kind == "checks":
        pattern = np.sign(np.sin(wave * y) * np.sin(wave * x))
    else:
        pattern = np.cos(wave * y) * np.cos(wave * x)
    color = rng.uniform(0.4, 1.0, channels)
    noisy = 0.5 + 0.35 * pattern[..., None] * color + rng.normal(0, 0.05, (size, size, channels))
    return (np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def make_folder(
    root: Path,
    per_class: int = 8,
    size: int = 32,
    channels: int = 3,
    suffix: str = ".png",
    classes: tuple[str, ...] = CLASSES,
    seed: int = 0,
) -> Path:
    """Writes class folders of pictures; returns `root`."""
    rng = np.random.default_rng(seed)
    for name in classes:
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            image = picture(name, size, rng, channels)
            Image.fromarray(image.squeeze()).save(folder / f"{name}_{i:03d}{suffix}")
    return root


def make_split_folder(root: Path, train: int = 8, held_out: int = 4, size: int = 32) -> Path:
    """Writes train, validation and test folders of class folders; returns `root`."""
    for seed, (split, count) in enumerate(
        [("train", train), ("validation", held_out), ("test", held_out)]
    ):
        make_folder(root / split, count, size, seed=seed)
    return root
