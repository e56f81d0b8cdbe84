"""Scores of a classifier for the images of one split, from which all metrics are computed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.manifest.identity import Image, image_of, page_text
from data_prep.manifest.manifest import Manifest

UNKNOWN = -1


@dataclass(frozen=True)
class ScoredSplit:
    """Scores of the images of a split.

    Attributes:
        split: `train`, `validation`, `test` or another name.
        paths: one per image, as in the manifest; the tiles of one picture share it.
        labels: int64 [n], positions among the class names; -1 = not known.
        scores: float64 [n, K], probabilities; rows sum to 1.
        groups: one per image, "" = of no group; None = no groups are known.
        tiles: one per image, `x,y,width,height` or "" = the whole picture; None = no tiles.
        readings: one per image, how the file is read, as in a manifest; None = as the files say.
    """

    split: str
    paths: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    groups: tuple[str, ...] | None = None
    tiles: tuple[str, ...] | None = None
    readings: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        n = len(self.paths)
        if self.scores.ndim != 2 or self.scores.shape[0] != n or self.scores.dtype != np.float64:
            raise ValueError(f"scores must be float64 [{n}, K], not {self.scores.shape}")
        if self.labels.shape != (n,) or self.labels.dtype != np.int64:
            raise ValueError(f"labels must be int64 [{n}], not {self.labels.shape}")
        if n and not (self.labels.min() >= -1 and self.labels.max() < self.scores.shape[1]):
            raise ValueError("a label has no column among the scores")
        known = (names for names in (self.groups, self.tiles, self.readings) if names is not None)
        if any(len(names) != n for names in known):
            raise ValueError(f"groups, tiles and readings must be {n} names, or None")
        if not np.isfinite(self.scores).all() or (self.scores < 0).any():
            raise ValueError("scores must be finite and not negative")
        if not np.allclose(self.scores.sum(axis=1), 1, rtol=0, atol=1e-8):
            raise ValueError("scores must sum to 1 in every row: see `from_manifest`")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    @staticmethod
    def from_manifest(
        split: str, manifest: Manifest, class_names: Sequence[str], scores: np.ndarray
    ) -> "ScoredSplit":
        """Joins scores with what the manifest knows of the images.

        Args:
            split: its name.
            manifest: the images of the split, in the order of the scores.
            class_names: in the order of the columns.
            scores: float [n, K], not negative: probabilities of any precision, which are scaled to
                sum to 1. Of logits give `softmax`.

        Raises:
            UserError: a label that is not among the classes.
            ValueError: scores that are no probabilities of these images.
        """
        scores = np.asarray(scores, np.float64)
        total = scores.sum(axis=1, keepdims=True)
        if not np.allclose(total, 1, rtol=0, atol=1e-2):
            raise ValueError("scores must be probabilities: every row sums to 1")
        records = manifest.records
        return ScoredSplit(
            split,
            tuple(record.path for record in records),
            manifest.label_indices(class_names),
            scores / total,
            _known(tuple(record.group for record in records)),
            _known(tuple(record.tile for record in records)),
            _known(tuple(record.reading for record in records)),
        )

    def labeled(self) -> "ScoredSplit":
        """Only the images whose class is known."""
        return self.take(np.flatnonzero(self.labels != UNKNOWN))

    def take(self, rows: np.ndarray) -> "ScoredSplit":
        """The images at the given positions, int [m]."""
        return ScoredSplit(
            self.split,
            tuple(self.paths[row] for row in rows),
            self.labels[rows],
            self.scores[rows],
            self.groups and tuple(self.groups[row] for row in rows),
            self.tiles and tuple(self.tiles[row] for row in rows),
            self.readings and tuple(self.readings[row] for row in rows),
        )

    @property
    def images(self) -> tuple[Image, ...]:
        """Keys that identify the images: path, array, page and tile.

        The array counts only where a file gives several, and the intensity rule not at all: how an
        image is read does not make it another one.
        """
        blank = ("",) * len(self)
        tiles, readings = self.tiles or blank, self.readings or blank
        images = tuple(map(image_of, self.paths, readings, tiles))
        arrays = {(image.file, image.array) for image in images}
        several = Counter(file for file, _ in arrays)
        return tuple(
            image if several[image.file] > 1 else image._replace(array="") for image in images
        )

    @property
    def pages(self) -> tuple[str, ...] | None:
        """The page of every image in its file, "" = not named; None = no pages."""
        return _known(tuple(map(page_text, self.readings))) if self.readings else None

    @property
    def units(self) -> tuple[str, ...] | None:
        """Names of the independent units, one per image; images that belong together share theirs.

        Images of a group belong together, and tiles of one picture. The pages of a file are
        pictures of their own. None = every image alone.
        """
        groups = self.groups or ("",) * len(self)
        names = tuple(
            f"group:{group}" if group else f"path:{image.file}:{image.array}:{image.page}"
            for group, image in zip(groups, self.images, strict=True)
        )
        return names if len(set(names)) < len(names) else None


def _known(names: tuple[str, ...]) -> tuple[str, ...] | None:
    return names if any(names) else None
