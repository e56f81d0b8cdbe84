"""Small sets of images and depth maps, and small runs on them, for tests."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep.manifest.manifest import Manifest, Record
from finetune.depth.settings import DepthConfig

SIZE = (12, 8)
TINY: dict[str, Any] = {
    "model": "autoencoder",
    "filters": "4,4",
    "bottleneck": 8,
    "discriminator_filters": "2,2,4",
    "residual_blocks": 1,
    "train_batch_size": 4,
    "eval_batch_size": 8,
    "train_epochs": 3,
    "precision": "float32",
    "sample_every": 0,
    "unit": "nm",
}


def brightness(rng: np.random.Generator) -> np.ndarray:
    """A bright box on dark ground, float [H, W] in [0, 1]."""
    image = np.full(SIZE, 0.2)
    top, left = rng.integers(1, 4), rng.integers(1, 3)
    image[top : top + 7, left : left + 5] = rng.uniform(0.5, 0.9)
    return image


def make_set(root: Path, maps: int = 12, splits: tuple[str, ...] = (), bits: int = 16) -> Manifest:
    """Two images for every map, two cases; depth is 100 + 80 x brightness.

    16-bit maps hold hundredths of a unit, 8-bit maps units, 32-bit ones (NPY) the depth itself.
    """
    rng = np.random.default_rng(0)
    records = []
    for number in range(maps):
        shape = brightness(rng)
        depth, name, case = 100 + 80 * shape, f"m{number:02d}", f"c{number % 2 + 1}"
        (root / "maps").mkdir(parents=True, exist_ok=True)
        (root / "sem" / case).mkdir(parents=True, exist_ok=True)
        target = f"maps/{name}.{'npy' if bits == 32 else 'png'}"
        if bits == 32:
            np.save(root / target, depth.astype(np.float32))
        else:
            scale = 100 if bits == 16 else 1
            dtype = np.uint16 if bits == 16 else np.uint8
            Image.fromarray(np.rint(depth * scale).astype(dtype)).save(root / target)
        for place in range(2):
            noisy = shape + rng.normal(0, 0.02, SIZE)
            path = f"sem/{case}/{name}_{place}.png"
            pixels = np.clip(noisy * 255, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / path)
            split = splits[number % len(splits)] if splits else ""
            records.append(
                Record(
                    path, split=split, group=name, case=case, target=target,
                    target_scale="0.01" if bits == 16 else "",
                )
            )  # fmt: skip
    manifest = Manifest(tuple(records), str(root))
    manifest.save(root / "manifest.csv")
    return manifest


def make_real(root: Path, images: int = 8) -> Path:
    """Images of another microscope: inverted; returns their manifest."""
    rng = np.random.default_rng(1)
    (root / "real").mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(images):
        pixels = ((1 - brightness(rng)) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "real" / f"{number}.png")
        records.append(Record(f"real/{number}.png", case=f"c{number % 2 + 1}"))
    Manifest(tuple(records), str(root)).save(root / "real_manifest.csv")
    return root / "real_manifest.csv"


def config(root: Path, output: Path, **values: Any) -> DepthConfig:
    """Settings of a small run on a set of `make_set`."""
    given = {"manifest": str(root / "manifest.csv"), "output": str(output), **values}
    return DepthConfig.from_values({**TINY, **given})
