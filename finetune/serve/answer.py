"""Classify one uploaded image, and find the training images most like it."""

import base64
import hashlib
import io
import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from data_prep.augment.color import to_float
from data_prep.errors import UserError
from data_prep.manifest.identity import image_name
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.open_images import page_choice
from data_prep.manifest.read_options import ALL_PAGES
from data_prep.manifest.scan import check_images
from data_prep.reading.formats.arrays import NO_LIMITS
from data_prep.reading.limits import ReadLimits
from data_prep.reading.spec import OF_BEFORE, parse_reading
from data_prep.reading.thumbnails import blank, thumbnail
from data_prep.reading.training_files import TrainingFiles, differences
from data_prep.reading.uploads import Upload, UploadOptions, read_upload
from data_prep.storage import write_bytes
from finetune.trained import BatchScorer, Trained
from simclr_tf.evaluation.metrics import softmax
from simclr_tf.evaluation.neighbors import nearest, unit_rows
from simclr_tf.models.weights import variables_hash

log = logging.getLogger(__name__)

CACHE = "neighbours.npz"
MANIFEST = "manifest.csv"

_CHUNK = 512
_MOST = 20_000


@dataclass(frozen=True)
class Neighbor:
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
class Neighbors:
    """The embedded training images of a run.

    Attributes:
        images: Those with a label.
        embeddings: float32 [n, D], of length 1.
    """

    images: Manifest
    embeddings: np.ndarray

    def nearest(self, features: np.ndarray, number: int) -> list[Neighbor]:
        """The training images nearest to features [D], the nearest first."""
        if not len(self.images):
            return []
        found = nearest(features[np.newaxis], self.embeddings, number)
        files = self.images.files()
        return [
            Neighbor(files[i], self.images.records[i], float(similarity))
            for i, similarity in zip(found.indices[0], found.similarities[0], strict=True)
        ]


def open_neighbors(
    trained: Trained,
    progress: Callable[[int, int], None] = lambda done, total: None,
    image_dir: str = "",
) -> Neighbors:
    """Embeds the labelled training images of a run, or reads the embeddings kept from before.

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
        return Neighbors(images, np.zeros((0, 1), np.float32))
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
    return Neighbors(images, embeddings)


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
    labeled = [record for record in manifest.records if record.label]
    train = [record for record in labeled if record.split == "train"] or labeled
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
    """The images as read in training; manifests of former versions do not say all of it."""
    old: dict[str, Any] = {
        name: how
        for name, how in OF_BEFORE.items()
        if trained.preprocessing.reading.fields.get(name) == how
    }
    if not old:
        return manifest
    return manifest.subset(
        replace(r, reading=str(replace(parse_reading(r.reading), **old))) for r in manifest.records
    )


def _embed(trained: Trained, images: Manifest, progress: Callable[[int, int], None]) -> np.ndarray:
    scorer = BatchScorer(trained, 64)
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
        content = io.BytesIO()
        np.savez(content, embeddings=embeddings, key=np.array(key))
        write_bytes(cache, content.getvalue())
    except (OSError, UserError) as error:
        log.warning("the embeddings are not kept: %s", error)


_NEIGHBORS = 8


@dataclass(frozen=True)
class NeighborCard:
    """A neighbour as the page shows it.

    Attributes:
        name: Of the image, without its folder.
        label: Its class.
        similarity: Cosine.
        picture: `data:` URI of a thumbnail.
    """

    name: str
    label: str
    similarity: float
    picture: str


@dataclass(frozen=True)
class Answer:
    """The answer for one image.

    Attributes:
        name: Of the uploaded file.
        predicted: Its class.
        scores: Classes with their probabilities, the best first.
        rule: How the class was decided, if not by the highest score.
        neighbours: The nearest training images.
        remarks: Differences from the training images that a user must know.
        picture: `data:` URI of a thumbnail of the image; empty unless asked for.
    """

    name: str
    predicted: str
    scores: tuple[tuple[str, float], ...]
    rule: str
    neighbours: tuple[NeighborCard, ...]
    remarks: tuple[str, ...] = ()
    picture: str = ""


class ReadUpload(Protocol):
    """Reads the bytes of an image file: `uploads.read_upload`, or a process for it."""

    def __call__(self, content: bytes, *, thumbnail: bool = False) -> Upload:
        """Pixels, facts of the file, and a thumbnail if asked for."""
        ...


def upload_options(trained: Trained, limits: ReadLimits = NO_LIMITS) -> UploadOptions:
    """Options for reading uploads as a classifier's training images were read."""
    declaration = trained.preprocessing.reading.declaration
    reading = declaration.reading()
    page = page_choice(declaration.page, reading)
    reading = replace(reading, page=None if page == ALL_PAGES else page)
    return UploadOptions(trained.preprocessing.channels, str(reading), limits)


class Classify:
    """Answers for one image at a time.

    Args:
        trained: The classifier.
        neighbors: Its training images.
        top_k: Classes to name.
        read: Reads the bytes of an image; None = in this process, of any size.
    """

    def __init__(
        self,
        trained: Trained,
        neighbors: Neighbors,
        top_k: int = 10,
        read: ReadUpload | None = None,
    ) -> None:
        self._read = read or partial(read_upload, options=upload_options(trained))
        self._trained, self._neighbors, self._top_k = trained, neighbors, top_k
        reading = trained.preprocessing.reading.declaration.reading()
        self._rule = reading.active_intensity
        self._forward = tf.function(trained.forward, reduce_retracing=True)
        self._one_at_a_time = threading.Lock()

    def __call__(self, name: str, content: bytes, *, pictured: bool = False) -> Answer:
        """The answer for the bytes of an image file.

        Args:
            name: Of the file.
            content: Its bytes.
            pictured: With a thumbnail of it.

        Raises:
            UserError: They are no image that the classifier can take.
        """
        with self._one_at_a_time:
            upload = self._read(content, thumbnail=pictured)
            remarks = self._remarks(upload.facts)
            outputs = self._forward(to_float(self._inputs(upload.pixels)))
            probabilities = softmax(_mean(outputs["logits"]))[0]
            answer = self._answer(name, probabilities, _mean(outputs["features"])[0])
            picture = _uri(upload.thumbnail) if pictured else ""
            return replace(answer, remarks=remarks, picture=picture)

    def _remarks(self, facts: TrainingFiles) -> tuple[str, ...]:
        """Describes the differences between the image and the training images."""
        trained = self._trained.preprocessing.reading.files
        if trained is None or not trained.bits:
            return ()
        if set(facts.bits) <= set(trained.bits):
            facts = replace(facts, values=None)  # a single image may be dark
        return tuple(differences(trained, facts, self._rule))

    def _inputs(self, pixels: np.ndarray) -> tf.Tensor:
        return self._trained.preprocessing.inputs(tf.constant(pixels), self._trained.crops)

    def _answer(self, name: str, probabilities: np.ndarray, features: np.ndarray) -> Answer:
        names, decision = self._trained.class_names, self._trained.decision
        order = np.argsort(-probabilities, kind="stable")[: self._top_k]
        rule = ""
        if decision.threshold is not None:
            rule = f"{names[decision.positive]} from a score of {decision.threshold:.4f} on"
        return Answer(
            name,
            names[int(decision.classes(probabilities[np.newaxis])[0])],
            tuple((names[k], float(probabilities[k])) for k in order),
            rule,
            tuple(self._nearest(features)),
        )

    def _nearest(self, features: np.ndarray) -> Iterable[NeighborCard]:
        for near in self._neighbors.nearest(features, _NEIGHBORS):
            record = near.record
            try:
                picture = thumbnail(near.file, record.tile, record.reading)
            except UserError:
                picture = blank()
            name = image_name(Path(near.file).name, record.reading, record.tile)
            yield NeighborCard(name, record.label, near.similarity, _uri(picture))


def _mean(values: tf.Tensor) -> np.ndarray:
    """Mean over the crops, [1, n]."""
    mean: np.ndarray = tf.reduce_mean(values, axis=0, keepdims=True).numpy()
    return mean


def _uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
