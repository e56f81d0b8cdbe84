"""What one fit gave on the sealed test images: a file of its own, so that a comparison goes on."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.checksums import Checksums, read_object
from data_prep.errors import UserError
from finetune.compare.images import LabelSet
from finetune.compare.strategies import Row

log = logging.getLogger(__name__)

FOLDER = "cells"
COSTS = "costs"


@dataclass(frozen=True)
class Cell:
    """A row with one set of labels.

    Attributes:
        row: Its slug.
        fold: See `LabelSet`.
        seed: See `LabelSet`.
        fraction: See `LabelSet`.
        labels: Images that it has learnt from.
        steps: Updates with labels.
        seconds: Time of the fit.
        images_seen: Images shown in the fit.
        probabilities: float64 [n, K], of the test images.
    """

    row: str
    fold: int
    seed: int
    fraction: float
    labels: int
    steps: int
    seconds: float
    images_seen: int
    probabilities: np.ndarray


def cell_file(output: Path, row: Row, labels: LabelSet) -> Path:
    """Where a cell lies."""
    return output / FOLDER / row.slug / f"{labels.name}.json"


def save_cell(output: Path, row: Row, labels: LabelSet, cell: Cell) -> None:
    """Writes a cell, whole or not at all."""
    file = cell_file(output, row, labels)
    file.parent.mkdir(parents=True, exist_ok=True)
    facts = {**asdict(cell), "probabilities": cell.probabilities.tolist()}
    Checksums(file.parent).write_text(file.name, json.dumps(facts) + "\n")


def load_cell(output: Path, row: Row, labels: LabelSet) -> Cell | None:
    """Reads a cell; None if it has not been done, or is damaged, which is said."""
    file = cell_file(output, row, labels)
    if not file.is_file():
        return None
    facts = _read(file)
    try:
        return Cell(**{**facts, "probabilities": np.array(facts["probabilities"], np.float64)})
    except (KeyError, TypeError):
        return None


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_object(file)
    except UserError as error:
        log.warning("%s; it counts as not done", error)
        return {}


def note_cost(output: Path, what: str, seconds: float, images: int) -> None:
    """Notes what shared work has cost: a pretraining, or features."""
    folder = output / COSTS
    folder.mkdir(exist_ok=True)
    facts = {"seconds": seconds, "images": images}
    Checksums(folder).write_text(f"{what}.json", json.dumps(facts) + "\n")


def read_cost(output: Path, what: str) -> tuple[float, int]:
    """Seconds and images of shared work; 0 if there was none."""
    file = output / COSTS / f"{what}.json"
    if not file.is_file():
        return 0.0, 0
    facts = _read(file)
    return float(facts.get("seconds", 0.0)), int(facts.get("images", 0))
