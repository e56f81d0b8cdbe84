"""What is said of one image that somebody hands over, with the training images most like it."""

import base64
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import tensorflow as tf

from data_prep.augment.photometry import to_float
from data_prep.augment.views import evaluation_crops, evaluation_image
from data_prep.errors import UserError
from data_prep.manifest.identity import image_name
from data_prep.manifest.open_images import page_choice
from data_prep.manifest.read_options import ALL_PAGES, Declaration
from data_prep.reading.formats.arrays import NO_LIMITS
from data_prep.reading.limits import ReadLimits
from data_prep.reading.thumbnails import blank, thumbnail
from data_prep.reading.training_files import TrainingFiles, differences
from data_prep.reading.uploads import Upload, UploadOptions, read_upload
from finetune.serve.similar import Neighbours
from finetune.trained import Trained
from simclr_tf.evaluation.metrics import softmax

_NEIGHBOURS = 8


@dataclass(frozen=True)
class Shown:
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
    """What is said of an image.

    Attributes:
        name: Of the uploaded file.
        predicted: Its class.
        scores: Classes with their probabilities, the best first.
        rule: How the class was decided, if not by the highest score.
        neighbours: The nearest training images.
        remarks: What a user must know of the image beside those of the training.
        picture: `data:` URI of a thumbnail of the image; empty unless asked for.
    """

    name: str
    predicted: str
    scores: tuple[tuple[str, float], ...]
    rule: str
    neighbours: tuple[Shown, ...]
    remarks: tuple[str, ...] = ()
    picture: str = ""


class ReadUpload(Protocol):
    """Reads the bytes of an image file: `uploads.read_upload`, or a process for it."""

    def __call__(self, content: bytes, *, thumbnail: bool = False) -> Upload:
        """Pixels, facts of the file, and a thumbnail if asked for."""
        ...


def upload_options(trained: Trained, limits: ReadLimits = NO_LIMITS) -> UploadOptions:
    """How images are read for a classifier."""
    declaration = Declaration(**trained.reading)
    reading = declaration.reading()
    page = page_choice(declaration.page, reading)
    reading = replace(reading, page=None if page == ALL_PAGES else page)
    return UploadOptions(trained.views.channels, str(reading), limits)


class Classify:
    """Answers for one image at a time.

    Args:
        trained: The classifier.
        neighbours: Its training images.
        top_k: Classes to name.
        read: Reads the bytes of an image; None = in this process, of any size.
    """

    def __init__(
        self,
        trained: Trained,
        neighbours: Neighbours,
        top_k: int = 10,
        read: ReadUpload | None = None,
    ) -> None:
        self._read = read or partial(read_upload, options=upload_options(trained))
        self._trained, self._neighbours, self._top_k = trained, neighbours, top_k
        self._rule = Declaration(**trained.reading).reading().active_intensity
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
            outputs = self._forward(to_float(self._views(tf.constant(upload.pixels))))
            probabilities = softmax(_mean(outputs["logits"]))[0]
            answer = self._answer(name, probabilities, _mean(outputs["features"])[0])
            picture = _uri(upload.thumbnail) if pictured else ""
            return replace(answer, remarks=remarks, picture=picture)

    def _remarks(self, facts: TrainingFiles) -> tuple[str, ...]:
        """What the image has not in common with the training images."""
        trained = self._trained.files
        if not trained.bits:
            return ()
        if set(facts.bits) <= set(trained.bits):
            facts = replace(facts, values=None)  # a single image may be dark
        return tuple(differences(trained, facts, self._rule))

    def _views(self, pixels: tf.Tensor) -> tf.Tensor:
        views, crops = self._trained.views, self._trained.crops
        if crops == 1:
            return evaluation_image(pixels, views)[tf.newaxis]
        return evaluation_crops(pixels, views, crops)

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

    def _nearest(self, features: np.ndarray) -> Iterable[Shown]:
        for near in self._neighbours.nearest(features, _NEIGHBOURS):
            record = near.record
            try:
                picture = thumbnail(near.file, record.tile, record.reading)
            except UserError:
                picture = blank()
            name = image_name(Path(near.file).name, record.reading, record.tile)
            yield Shown(name, record.label, near.similarity, _uri(picture))


def _mean(values: tf.Tensor) -> np.ndarray:
    """Mean over the crops, [1, n]."""
    mean: np.ndarray = tf.reduce_mean(values, axis=0, keepdims=True).numpy()
    return mean


def _uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
