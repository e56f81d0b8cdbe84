"""The labelled training images that lie nearest to a new one in a run's embedding."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.scan import check_images
from data_prep.reading.spec import OF_BEFORE, parse_reading
from finetune.trained import Scorer, Trained
from simclr_tf.evaluation.blockwise import nearest, unit_rows
from simclr_tf.models.fingerprint import variables_hash

log = logging.getLogger(__name__)

CACHE = "neighbours.npz"
MANIFEST = "manifest.csv"

_CHUNK = 512
_MOST = 20_000


@dataclass(frozen=True)
class Neighbour:
    """A training image near another image.

    Attributes:
        file: Where it lies.
        record: Its label, tile and reading.
        similarity: Cosine of the angle between the embeddings, at most 1.
    """

    file: str
    record: Record
    similarity: float


@dataclass(frozen=True)
class Neighbours:
    """The embedded training images of a run.

    Attributes:
        images: Those with a label.
        embeddings: float32 [n, D], of length 1.
    """

    images: Manifest
    embeddings: np.ndarray

    def nearest(self, features: np.ndarray, number: int) -> list[Neighbour]:
        """The training images nearest to features [D], the nearest first."""
        if not len(self.images):
            return []
        found = nearest(features[np.newaxis], self.embeddings, number)
        files = self.images.files()
        return [
            Neighbour(files[i], self.images.records[i], float(similarity))
            for i, similarity in zip(found.indices[0], found.similarities[0], strict=True)
        ]


def open_neighbours(
    trained: Trained,
    progress: Callable[[int, int], None] = lambda done, total: None,
    image_dir: str = "",
) -> Neighbours:
    """Embeds the labelled training images of a run, or takes what was kept of an earlier time.

    Args:
        trained: The classifier; its folder's `manifest.csv` lists the images, and `neighbours.npz`
            there keeps the embeddings for as long as images, their files and weights are the same.
        progress: Called with (images embedded, images in all).
        image_dir: Where the images lie now, if not where the manifest says.

    Returns:
        None at all if the run has no manifest, or its images are gone; the log says so.
    """
    images = training_images(trained, image_dir)
    if not len(images):
        return Neighbours(images, np.zeros((0, 1), np.float32))
    cache = trained.folder / CACHE
    key = " ".join(
        (
            images.sha256(),
            _stamps(images),
            variables_hash(trained.network.variables),
            str(trained.crops),
        )
    )
    embeddings = _read(cache, key)
    if embeddings is None:
        log.info("embedding %d training images", len(images))
        embeddings = _embed(trained, images, progress)
        _write(cache, key, embeddings)
    return Neighbours(images, embeddings)


def training_images(trained: Trained, image_dir: str = "") -> Manifest:
    """The labelled training images of a run that are still there; none if it has no manifest.

    Args:
        trained: The classifier.
        image_dir: Where the images lie now, if not where the manifest says.
    """
    file = trained.folder / MANIFEST
    if not file.is_file():
        log.warning("%s has no %s: no neighbours are shown", trained.folder, MANIFEST)
        return Manifest(())
    manifest = _as_trained(Manifest.load(file, image_dir), trained)
    labelled = [record for record in manifest.records if record.label]
    train = [record for record in labelled if record.split == "train"] or labelled
    if len(train) > _MOST:
        log.warning("only %d of %d training images are looked among", _MOST, len(train))
        rows = np.random.default_rng(0).choice(len(train), _MOST, replace=False)
        train = [train[row] for row in np.sort(rows)]
    try:
        return check_images(manifest.subset(train), skip_unreadable=True)
    except UserError as error:
        log.warning("no neighbours are shown: %s", error)
        return Manifest(())


def _as_trained(manifest: Manifest, trained: Trained) -> Manifest:
    """The images read as they were in training, of which a manifest of before does not say all."""
    old: dict[str, Any] = {
        name: how for name, how in OF_BEFORE.items() if trained.reading.get(name) == how
    }
    if not old:
        return manifest
    return manifest.subset(
        replace(r, reading=str(replace(parse_reading(r.reading), **old))) for r in manifest.records
    )


def _embed(trained: Trained, images: Manifest, progress: Callable[[int, int], None]) -> np.ndarray:
    scorer = Scorer(trained, 64)
    parts = []
    for start in range(0, len(images), _CHUNK):
        chunk = images.records[start : start + _CHUNK]
        parts.append(unit_rows(scorer.outputs(images.subset(chunk))[1]))
        progress(start + len(chunk), len(images))
    return np.concatenate(parts)


def _stamps(images: Manifest) -> str:
    """Hash of what changes when a file does."""
    status = (os.stat(file) for file in dict.fromkeys(images.files()))
    text = " ".join(f"{one.st_size}:{one.st_mtime_ns}" for one in status)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(cache: Path, key: str) -> np.ndarray | None:
    try:
        with np.load(cache, allow_pickle=False) as kept:
            return np.asarray(kept["embeddings"]) if str(kept["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _write(cache: Path, key: str, embeddings: np.ndarray) -> None:
    """Keeps the embeddings, if the folder can be written to."""
    try:
        handle, temporary = tempfile.mkstemp(dir=cache.parent, prefix=f".{cache.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, embeddings=embeddings, key=np.array(key))
            os.replace(temporary, cache)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        log.warning("the embeddings are not kept: %s", error.strerror)
