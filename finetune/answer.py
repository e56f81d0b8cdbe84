"""What is said of one image that somebody hands over, with the training images most like it."""

import base64
import io
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from data_prep.augment.photometry import to_float
from data_prep.augment.views import evaluation_crops, evaluation_image
from data_prep.declaration import ALL_PAGES, Declaration
from data_prep.declared import page_choice
from data_prep.errors import UserError
from data_prep.formats.arrays import NO_LIMITS
from data_prep.headers import parse_header
from data_prep.identity import image_name
from data_prep.limits import ReadLimits
from data_prep.readers import read_image
from data_prep.thumbnails import blank, thumbnail
from data_prep.training_files import differences, of_one, stored_bits
from finetune.neighbours import Neighbours
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
    """

    name: str
    predicted: str
    scores: tuple[tuple[str, float], ...]
    rule: str
    neighbours: tuple[Shown, ...]
    remarks: tuple[str, ...] = ()


class Classify:
    """Answers for one image at a time.

    Args:
        trained: The classifier.
        neighbours: Its training images.
        top_k: Classes to name.
        limits: Of the pictures.
    """

    def __init__(
        self,
        trained: Trained,
        neighbours: Neighbours,
        top_k: int = 10,
        limits: ReadLimits = NO_LIMITS,
    ) -> None:
        self._limits = limits
        self._trained, self._neighbours, self._top_k = trained, neighbours, top_k
        declaration = Declaration(**trained.reading)
        reading = declaration.reading()
        page = page_choice(declaration.page, reading)
        self._declared = replace(reading, page=None if page == ALL_PAGES else page)
        self._reading = str(self._declared)
        self._forward = tf.function(trained.forward, reduce_retracing=True)
        self._one_at_a_time = threading.Lock()

    def picture(self, content: bytes) -> str:
        """`data:` URI of a thumbnail of an image's bytes."""
        with self._one_at_a_time:
            self._check(content)
            return _uri(thumbnail(content, reading=self._reading))

    def __call__(self, name: str, content: bytes) -> Answer:
        """The answer for the bytes of an image file.

        Raises:
            UserError: They are no image that the classifier can take.
        """
        with self._one_at_a_time:
            self._check(content)
            channels = self._trained.views.channels
            pixels = read_image(content, channels, self._reading, limits=self._limits)
            remarks = self._remarks(content)
            outputs = self._forward(to_float(self._views(tf.constant(pixels))))
            probabilities = softmax(_mean(outputs["logits"]))[0]
            answer = self._answer(name, probabilities, _mean(outputs["features"])[0])
            return replace(answer, remarks=remarks)

    def _remarks(self, content: bytes) -> tuple[str, ...]:
        """What the image has not in common with the training images."""
        trained = self._trained.files
        if not trained.bits:
            return ()
        pixels = read_image(content, None, self._reading, limits=self._limits)
        bits = stored_bits(io.BytesIO(content), content[:64], self._declared)
        rule = self._declared.active_intensity
        one = of_one(bits, pixels)
        if bits in trained.bits:
            one = replace(one, values=None)  # a single image may be dark
        return tuple(differences(trained, one, rule))

    def _check(self, content: bytes) -> None:
        """Refuses an image that is too large, from its header."""
        parse_header(io.BytesIO(content), self._declared, limits=self._limits)

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
