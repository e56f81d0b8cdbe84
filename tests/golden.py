"""The rules by which the golden numbers' weights, inputs and labels were made (tests/reference).

Every array is a pure function of a text key, so neither weights nor inputs have to be stored.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

REFERENCE = Path(__file__).parent / "reference"
SALT = "simclr"


def rng(key: str) -> np.random.Generator:
    """The generator that belongs to a key."""
    digest = hashlib.sha256(key.encode()).digest()[:8]
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Initial value of the variable with this canonical name, float32."""
    n = rng(f"{SALT}:{name}").standard_normal(size=shape)
    last = name.rsplit("/", 1)[-1]
    if last == "kernel":
        value = n * np.sqrt(1 / np.prod(shape[:-1]))
    elif last == "gamma":
        value = 1 + 0.1 * n
    elif last in ("beta", "bias", "moving_mean"):
        value = 0.1 * n
    elif last == "moving_variance":
        value = 1 + 0.1 * np.abs(n)
    else:
        raise ValueError(f"no fill rule for {name}")
    return value.astype(np.float32)


def images(key: str, batch: int, size: int, channels: int) -> np.ndarray:
    """Images [batch, size, size, channels] in [0, 1], float32; 6 channels are two views."""
    g = rng(key)
    repeat = -(-size // 4)

    def block() -> np.ndarray:
        coarse = g.random((batch, 4, 4, 3))
        return np.repeat(np.repeat(coarse, repeat, axis=1), repeat, axis=2)[:, :size, :size, :]

    shape = (batch, size, size, 3)
    if channels == 3:
        a = block()
        return (0.8 * a + 0.2 * g.random(shape)).astype(np.float32)
    a, b = block(), block()
    n1, n2 = g.random(shape), g.random(shape)
    views = [0.8 * a + 0.2 * n1, 0.6 * a + 0.2 * b + 0.2 * n2]
    return np.concatenate(views, axis=-1).astype(np.float32)


def labels(key: str, n: int, k: int) -> np.ndarray:
    """Integer labels [n] in [0, k)."""
    return rng(key).integers(0, k, size=n)


def probe(name: str, size: int) -> np.ndarray:
    """Direction for checksums of gradients and updates, float64 [size]."""
    return rng(f"probe:{name}").standard_normal(size)


@cache
def load_json(name: str) -> Any:
    """A JSON file of the golden numbers, by its path without suffix."""
    return json.loads((REFERENCE / f"{name}.json").read_text())


@cache
def load_arrays(name: str) -> dict[str, np.ndarray]:
    """An NPZ file of the golden numbers, by its path without suffix."""
    with np.load(REFERENCE / f"{name}.npz") as archive:
        return dict(archive)
