"""Features of a whole data set, with the labels and indices of the images they come from."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

UNLABELED = -1


@dataclass(frozen=True)
class Embeddings:
    """Features of n images.

    Attributes:
        features: float32 [n, d].
        labels: int64 [n]; -1 = no label.
        indices: int64 [n], the images' positions in their source, each once.
    """

    features: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def labeled(self) -> "Embeddings":
        """Only the images that have a label."""
        return self.take(np.nonzero(self.labels != UNLABELED)[0])

    def take(self, rows: np.ndarray) -> "Embeddings":
        """The given rows: integer positions [m] or a mask [n]."""
        return Embeddings(self.features[rows], self.labels[rows], self.indices[rows])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `.npz`, complete or not at all."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            np.savez(file, features=self.features, labels=self.labels, indices=self.indices)
        partial.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Embeddings":
        """Reads what `save` wrote."""
        with np.load(path) as archive:
            return cls(archive["features"], archive["labels"], archive["indices"])


def l2_normalize(features: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, in their dtype; rows of zeros stay zero.

    Args:
        features: float [n, d].
    """
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.maximum(norms, np.finfo(features.dtype).tiny)
