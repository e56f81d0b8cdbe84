"""An exported model beside the network: on noise, and on training images from their files on."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from data_prep.augment.photometry import to_float
from data_prep.manifest.manifest import Manifest
from finetune.export.reading import GivenImage, scored_views
from finetune.serve.similar import training_images
from finetune.trained import Scorer, Trained

log = logging.getLogger(__name__)

_FILES = 24
_BATCH = 8

Run = Callable[[np.ndarray], dict[str, np.ndarray]]
"""The exported model: outputs of its input."""


@dataclass(frozen=True)
class Checked:
    """How near an exported model is to what it was made from.

    Attributes:
        on_noise: Largest difference of a probability on noise of several sizes.
        on_files: The same on training images through their files, from what prediction says of
            these; None if they are not there.
        files: How many files.
        other_classes: Of how many of them the likeliest class is another.
    """

    on_noise: float
    on_files: float | None = None
    files: int = 0
    other_classes: int = 0


def some_training_images(trained: Trained) -> Manifest:
    """Training images of all classes, if their files are still there; the log says if not."""
    images = training_images(trained)
    if not len(images):
        log.warning("the training images are not here: the export is checked on noise alone")
        return images
    ranked = sorted(images.records, key=lambda record: record.label)
    rows = np.linspace(0, len(ranked) - 1, min(_FILES, len(ranked))).astype(np.int64)
    return images.subset(ranked[row] for row in rows)


def check(run: Run, trained: Trained, given: GivenImage, images: Manifest) -> Checked:
    """Runs an exported model.

    Args:
        run: The model.
        trained: What it was made from.
        given: Its input.
        images: Training images.
    """
    on_noise = _on_noise(run, trained, given)
    if not len(images):
        return Checked(on_noise)
    scorer = Scorer(trained, _BATCH)
    expected = scorer.scores(images)
    found = np.concatenate(
        [
            _outside(run, trained, given, given.from_file(file, record))
            for record, file in zip(images.records, images.files(), strict=True)
        ]
    )
    others = int((found.argmax(1) != expected.argmax(1)).sum())
    return Checked(on_noise, float(np.abs(found - expected).max()), len(images), others)


def _on_noise(run: Run, trained: Trained, given: GivenImage) -> float:
    """How far probabilities lie from the network's own, on noise of several sizes."""
    rng, side, worst = np.random.default_rng(0), trained.views.image_size, 0.0
    for height, width in ((side, side), (2 * side + 3, 3 * side), (side // 2 + 1, side)):
        image = given.example(rng, height, width)
        seen = _seen(trained, given.outside(image))
        logits = tf.reduce_mean(trained.forward(to_float(seen))["logits"], 0, keepdims=True)
        expected = tf.nn.softmax(logits).numpy()
        worst = max(worst, float(np.abs(_outside(run, trained, given, image) - expected).max()))
    return worst


def _outside(run: Run, trained: Trained, given: GivenImage, image: np.ndarray) -> np.ndarray:
    """What the exported model says of an image, prepared as its facts say: [1, K]."""
    if not given.prepared:
        return run(image)["probabilities"]
    seen = to_float(_seen(trained, given.outside(image))).numpy()
    logits = run(seen)["logits"].mean(0, keepdims=True)
    return np.asarray(tf.nn.softmax(logits))


def _seen(trained: Trained, image: np.ndarray) -> tf.Tensor:
    return scored_views(tf.constant(image), trained.views, trained.crops)
