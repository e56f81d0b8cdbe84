"""Real image sets that lie outside the project; tests that want one are skipped without it."""

import os
from pathlib import Path

import pytest

_PROJECT = Path(__file__).resolve().parents[1]


def data_set(name: str) -> Path:
    """Folder of a set in $SIMCLR_TF_DATA, or else in ../shared/data beside the project."""
    root = Path(os.environ.get("SIMCLR_TF_DATA") or _PROJECT.parent / "shared" / "data")
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"image set {name} is not in {root}; set SIMCLR_TF_DATA to its folder")
    return folder
