"""The floors of a run: what simpler methods say of the images that its network is scored on."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from data_prep.augment.color import to_float
from data_prep.augment.geometry import central_box
from data_prep.manifest.manifest import Manifest
from data_prep.phrases import format_seconds
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.source import Source
from simclr_tf.evaluation.floors import (
    MAJORITY,
    PIXELS,
    RAW_PIXELS,
    UNTRAINED,
    majority,
    probe_scores,
)
from simclr_tf.training.distribution import Devices
from simclr_tf.training.evaluator import Evaluator, Forward, ImageOutputs

log = logging.getLogger(__name__)

_MOST_IMAGES = 2000  # of training, and twice as many of those scored: more change little
_LARGE = 160  # pixels along a side from which on the untrained network sees fewer
_MOST_LARGE = 500
_MOST_FEATURES = 1024
_AT_ONCE = 64


@dataclass(frozen=True)
class Images:
    """The images of a split.

    Attributes:
        name: Of the split.
        source: Gives them.
        manifest: Where they lie, in the order of the source; None = not known, and no sample of
            them can be taken.
    """

    name: str
    source: Source
    manifest: Manifest | None

    def labels(self) -> np.ndarray:
        """Class numbers int64 [n], -1 = none; all 0 where they are not known yet."""
        if self.manifest is None:
            return np.zeros(self.source.num_examples, np.int64)
        return self.manifest.label_indices(self.source.class_names)

    def part(self, rows: np.ndarray) -> Source:
        """The images of these rows; all of them without a manifest to choose from."""
        if self.manifest is None or len(rows) == self.source.num_examples:
            return self.source
        records = self.manifest.records
        kept = self.manifest.subset(records[row] for row in rows)
        return ManifestSource(kept, self.source.class_names, self.source.channels)


@dataclass(frozen=True)
class FloorScores:
    """Class probabilities that floors give for the images of a split.

    Attributes:
        scores: Floor -> class probabilities float64 [m, K].
        labels: Classes of these m images, int64 [m], all known.
        rows: Rows of these images in the split, int64 [m].
        train_images: Training images that the floor of pixels was fitted on.
        note: What a reader must know of them; empty if nothing.
    """

    scores: dict[str, np.ndarray]
    labels: np.ndarray
    rows: np.ndarray
    train_images: int
    note: str


def measure_floors(
    train: Images,
    held_out: Images,
    untrained: Callable[[tf.Tensor], tf.Tensor],
    evaluator: Callable[[Forward], Evaluator],
    side: int,
    seed: int,
) -> FloorScores:
    """Fits the floors on the training images and scores others.

    Large sets are sampled, so that floors take seconds.

    Args:
        train: The training images.
        held_out: What is scored; images without a label are left out.
        untrained: Gives the features [b, D] of the network with fresh weights.
        evaluator: Makes what runs a function over images.
        side: Of the images in pixels.
        seed: Of the parts taken and of the fits.
    """
    began = time.perf_counter()
    classes = len(train.source.class_names)
    most = _MOST_LARGE if side > _LARGE else _MOST_IMAGES
    rows = _some(np.flatnonzero(held_out.labels() >= 0), 2 * most, seed)
    train_rows = _some(np.flatnonzero(train.labels() >= 0), _MOST_IMAGES, seed)
    few_rows = _some(train_rows, most, seed)

    def pixels(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": some_features(flat_pixels(images), seed)}

    def features(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": some_features(tf.cast(untrained(images), tf.float32), seed)}

    scores: dict[str, np.ndarray] = {}
    labels = np.zeros(0, np.int64)
    for name, forward, fitted_on in (
        (RAW_PIXELS, pixels, train_rows),
        (UNTRAINED, features, few_rows),
    ):
        run = evaluator(forward)
        fitted = _labeled(run.outputs(train.part(fitted_on)))
        scored = _labeled(run.outputs(held_out.part(rows)))
        labels = scored.label
        scores = scores or {MAJORITY: majority(fitted.label, classes, len(labels))}
        own = probe_scores(fitted.features, fitted.label, scored.features, classes, seed)
        scores |= {} if own is None else {name: own}
    log.info("floors computed in %s", format_seconds(time.perf_counter() - began))
    told = [
        _note(len(rows), int((held_out.labels() >= 0).sum()), f"{held_out.name} images compared"),
        _note(
            len(few_rows),
            int((train.labels() >= 0).sum()),
            "training images seen by the untrained network",
        ),
    ]
    note = " and ".join(filter(None, told))
    note = f"Samples are used: {note}." if note else ""
    return FloorScores(scores, labels, rows, len(train_rows), note)


def shrunk(images: tf.Tensor) -> tf.Tensor:
    """Images [..., H, W, C] in [0, 1], squeezed to [..., PIXELS, PIXELS, C] by means over areas."""
    return tf.image.resize(tf.cast(images, tf.float32), (PIXELS, PIXELS), method="area")


def flat_pixels(images: tf.Tensor) -> tf.Tensor:
    """The features [b, PIXELS * PIXELS * C] of the floor of raw pixels, of images [b, H, W, C]."""
    return tf.reshape(shrunk(images), [-1, PIXELS * PIXELS * images.shape[-1]])


def raw_pixels(source: Source, devices: Devices, central_crop: float = 0.0) -> np.ndarray:
    """The features of the floor of raw pixels of whole images, whatever a network sees of them.

    Args:
        source: The images.
        devices: What computes them.
        central_crop: Central share of an image that is kept before anything else; 0 = all.

    Returns:
        Features float32 [n, PIXELS * PIXELS * C], in the order of the source.
    """

    def small(image: tf.Tensor) -> tf.Tensor:
        if central_crop:
            box = central_box(image, 1.0, central_crop)
            image = tf.slice(image, [box.top, box.left, 0], [box.height, box.width, -1])
        return tf.ensure_shape(shrunk(to_float(image)), [PIXELS, PIXELS, source.channels])

    def flat(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": flat_pixels(images)}

    return Evaluator(flat, small, devices, _AT_ONCE).outputs(source).features


def some_features(features: tf.Tensor, seed: int) -> tf.Tensor:
    """All columns of features [b, D], or `_MOST_FEATURES` of them, drawn by a seed."""
    if features.shape[1] <= _MOST_FEATURES:
        return features
    drawn = np.random.default_rng(seed).choice(features.shape[1], _MOST_FEATURES, replace=False)
    return tf.gather(features, tf.constant(drawn), axis=1)


def _labeled(outputs: ImageOutputs) -> ImageOutputs:
    known = outputs.label >= 0
    return ImageOutputs(outputs.index[known], outputs.label[known], outputs.features[known], None)


def _note(used: int, there: int, what: str) -> str:
    return f"{used} of {there} {what}" if used < there else ""


def _some(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
