"""Small image files of every kind for tests."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image


def pixels(seed: int, height: int = 12, width: int = 16, channels: int = 3) -> np.ndarray:
    """Smooth random pixels, uint8 [H, W, C] ([H, W] for one channel)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, channels), dtype=np.uint8)
    bands = [
        np.asarray(
            Image.fromarray(coarse[..., band]).resize((width, height), Image.Resampling.BICUBIC)
        )
        for band in range(channels)
    ]
    return bands[0] if channels == 1 else np.stack(bands, axis=-1)


def write(path: Path, array: np.ndarray, **options: object) -> Path:
    """Writes an array with Pillow, the format by the file's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def write_class_folders(
    root: Path, classes: dict[str, int], ending: str = ".png", channels: int = 1
) -> Path:
    """A folder of class folders; every image has other pixels."""
    seed = 0
    for label, number in classes.items():
        for image in range(number):
            seed += 1
            write(root / label / f"{image:03d}{ending}", pixels(seed, channels=channels))
    return root


def write_tiff(path: Path, array: np.ndarray, **options: object) -> Path:
    """Writes a TIFF with tifffile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **options)
    return path
