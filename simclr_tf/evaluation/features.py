"""Features of a whole data set, with the labels and indices of the images they come from."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

UNLABELLED = -1


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

    def labelled(self) -> "Embeddings":
        """Only the images that have a label."""
        return self.take(np.nonzero(self.labels != UNLABELLED)[0])

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


def extract(
    model_fn: Callable[[Any], Any], dataset: Iterable[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs a model over a whole data set, in the order of the images' indices.

    Args:
        model_fn: images [b, ...] to features [b, d] or maps [b, h, w, d], which are averaged
            over h and w. Call the model with `training=False` in it.
        dataset: batches, mappings with `image` [b, ...], `index` [b] and, where known, `label`
            [b]; one pass, the last batch may be short. A `tf.data.Dataset` is one.

    Returns:
        features float32 [n, d], labels int64 [n] (-1 = none), indices int64 [n] ascending.

    Raises:
        ValueError: an empty data set, or an image that comes twice.
    """
    features, labels, indices = [], [], []
    for batch in dataset:
        index = np.asarray(batch["index"]).astype(np.int64)
        rows = np.asarray(model_fn(batch["image"])).astype(np.float32)
        features.append(rows if rows.ndim == 2 else _pool(rows))
        indices.append(index)
        label = batch.get("label")
        labels.append(
            np.full(len(index), UNLABELLED)
            if label is None
            else np.asarray(label).astype(np.int64).reshape(len(index))
        )
    if not features:
        raise ValueError("no images to embed: the data set is empty")
    order = np.concatenate(indices)
    if len(np.unique(order)) < len(order):
        raise ValueError("an image comes twice: embed a single pass that does not repeat")
    sort = np.argsort(order)
    return (
        np.concatenate(features)[sort],
        np.concatenate(labels).astype(np.int64)[sort],
        order[sort],
    )


def embed(model_fn: Callable[[Any], Any], dataset: Iterable[Mapping[str, Any]]) -> Embeddings:
    """`extract`, as one object."""
    return Embeddings(*extract(model_fn, dataset))


def l2_normalize(features: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, in their dtype; rows of zeros stay zero.

    Args:
        features: float [n, d].
    """
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.maximum(norms, np.finfo(features.dtype).tiny)


def _pool(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1, rows.shape[-1]).mean(axis=1)
