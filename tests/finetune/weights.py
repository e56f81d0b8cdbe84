"""Public weights that lie outside the project; tests that want them are skipped without."""

import os
from pathlib import Path

import pytest

_PROJECT = Path(__file__).resolve().parents[2]


def weights_file(network: str) -> Path:
    """ImageNet weights in $SIMCLR_TF_WEIGHTS, or else in ../shared/weights beside the project."""
    root = Path(os.environ.get("SIMCLR_TF_WEIGHTS") or _PROJECT.parent / "shared" / "weights")
    file = root / f"{network}_imagenet_notop.weights.h5"
    if not file.is_file():
        pytest.skip(f"{file.name} is not in {root}; set SIMCLR_TF_WEIGHTS to its folder")
    return file
