"""An embedding on disk: features that stay there, and what is known of the images."""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.checksums import read_object
from data_prep.errors import UserError
from data_prep.manifest.groups import unit_numbers
from data_prep.manifest.manifest import Manifest
from data_prep.storage import write_text
from simclr_tf.embedding.table import KNOWN, read_rows

FEATURES, TABLE, FACTS, MANIFEST = "features.npy", "embedding.csv", "embedding.json", "manifest.csv"
ARCHIVE, PARQUET, UNREADABLE = "embedding.npz", "embedding.parquet", "unreadable.csv"
COMPUTED = (FEATURES, MANIFEST, ARCHIVE, UNREADABLE, "floors.npz")

_ROWS = 8192


class FeatureFile:
    """Features in a `.npy` file, of which only what is asked for comes into memory.

    `numpy.load(path, mmap_mode="r")` opens the same file; here a mapping ends with each call, so
    that pages which were read do not count as the process's memory.

    Args:
        path: The file; [n, d].
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        mapped = self._mapped()
        self.shape: tuple[int, ...] = mapped.shape
        self.dtype: np.dtype = mapped.dtype

    def _mapped(self) -> np.ndarray:
        mapped: np.ndarray = np.load(self._path, mmap_mode="r")
        return mapped

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """The rows, float32 [m, d], as an array of their own."""
        return np.array(self._mapped()[rows], np.float32)


@dataclass(frozen=True)
class Stored:
    """An embedding of n images.

    Attributes:
        folder: Where it lies.
        features: [n, d].
        images: The records of the images, with absolute paths.
        columns: What is known of each: texts of `table.KNOWN`, and of experts.
        facts: What `embedding.json` holds.
    """

    folder: Path
    features: FeatureFile
    images: Manifest
    columns: dict[str, list[str]]
    facts: dict[str, Any]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def expert_columns(self) -> tuple[str, ...]:
        """Names of the columns that experts gave."""
        return tuple(self.facts.get("expert_columns", ()))

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Names of the columns that hold any label."""
        names = ("label", *self.expert_columns)
        return tuple(name for name in names if any(self.columns[name]))

    @cached_property
    def units(self) -> np.ndarray | None:
        """What is independent of what: a number an image, the same for images of one group or the
        tiles of one picture; None = every image alone."""  # noqa: D205, D209
        units = unit_numbers(self.images)
        return units if int(units.max()) + 1 < len(units) else None


def open_stored(folder: Path, flag: str = "embedding", image_dir: str = "") -> Stored:
    """Opens a finished embedding.

    Args:
        folder: That `simclr-embed` made.
        flag: That names it, for messages.
        image_dir: Where its images lie now, if not where its manifest says.

    Raises:
        UserError: It is none, or its files do not belong together.
    """
    if not is_stored(folder):
        raise UserError(f"--{flag}={folder}: holds no embedding ({FEATURES} and {FACTS})")
    facts = read_object(folder / FACTS)
    columns = read_rows(folder / TABLE)
    kept = {n: c for n, c in columns.items() if n in (*KNOWN, *facts["expert_columns"])}
    features, images = FeatureFile(folder / FEATURES), Manifest.load(folder / MANIFEST, image_dir)
    if not len(features) == len(images) == len(columns["path"]):
        raise UserError(
            f"--{flag}={folder}: {FEATURES} has {len(features)} rows, {TABLE} "
            f"{len(columns['path'])} and {MANIFEST} {len(images)}; embed the images again"
        )
    return Stored(folder, features, images, kept, facts)


def is_stored(folder: Path) -> bool:
    """Whether a folder holds a finished embedding."""
    return (folder / FEATURES).is_file() and (folder / FACTS).is_file()


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Writes `embedding.json`."""
    write_text(folder / FACTS, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def publish(made: Path, target: Path, own: tuple[str, ...]) -> None:
    """Moves what was made to where it belongs; of old files only those of the same names go.

    Args:
        made: The folder, complete.
        target: A folder that may be there.
        own: Names of all that could be in it.
    """
    if not target.exists() or not any(target.iterdir()):
        made.replace(target)
        return
    for name in own:
        old, new = target / name, made / name
        if old.is_dir():
            shutil.rmtree(old)
        if new.exists():
            new.replace(old)
        else:
            old.unlink(missing_ok=True)
    shutil.rmtree(made)
