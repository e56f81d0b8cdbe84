"""Sends every image to the generator of its case, by what a classifier says of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.names import match_name
from data_prep.reading.images import with_channels
from finetune.trained import Trained
from simclr_tf.evaluation.intervals import Interval, wilson_interval
from simclr_tf.evaluation.metrics import confusion_matrix, softmax


@dataclass(frozen=True)
class Routes:
    """The cases that images are sent to, with their probabilities.

    Attributes:
        cases: The case of every image, [n].
        probability: The classifier's probability of that case, float64 [n].
        shares: Probabilities of all cases, in the order of `Router.cases`, float64 [n, K].
    """

    cases: tuple[str, ...]
    probability: np.ndarray
    shares: np.ndarray


class Router:
    """A classifier whose classes are cases; its graph is traced once.

    Args:
        trained: The classifier.
        cases: The cases that there are generators for.
        batch_size: Images of a pass.

    Raises:
        UserError: A class of the classifier has no generator.
    """

    def __init__(self, trained: Trained, cases: Sequence[str], batch_size: int = 64) -> None:
        found = {name: match_name(name, cases) for name in trained.class_names}
        missing = [name for name, case in found.items() if case is None]
        if missing:
            raise UserError(
                f"knows a case {missing[0]!r} that has no generator (there"
                f" are {', '.join(sorted(cases))}); both must be trained on the same cases",
                setting="router",
                value=trained.path,
            )
        self._trained, self._batch_size = trained, batch_size
        self.cases = tuple(case for case in found.values() if case is not None)

    def route(self, images: np.ndarray) -> Routes:
        """The case of every image.

        Args:
            images: float32 [n, H, W, 1] in [0, 1]; cropped and resized as in the classifier's
                training, but in floating point always.
        """
        scores = self.probabilities(images)
        best = self._trained.decision.classes(scores)
        likeliest = scores[np.arange(len(scores)), best]
        return Routes(tuple(self.cases[c] for c in best), likeliest, scores)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probabilities of every case, float64 [n, K]; see `route`."""
        parts = []
        for start in range(0, len(images), self._batch_size):
            some = images[start : start + self._batch_size]
            # Every pass has the same shape, so that one graph serves all.
            padded = np.zeros((self._batch_size, *some.shape[1:]), np.float32)
            padded[: len(some)] = some
            channels = self._trained.preprocessing.channels
            wide = with_channels(padded.reshape(-1, *some.shape[2:]), channels, "SEM image")
            batch = tf.constant(wide.reshape(*padded.shape[:-1], channels))
            parts.append(self._logits(batch).numpy()[: len(some)])
        return softmax(np.concatenate(parts)) if parts else np.zeros((0, len(self.cases)))

    @tf.function(reduce_retracing=True)
    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        """Logits [B, K] of images [B, H, W, C], the mean over the crops."""
        trained = self._trained
        preprocessing, crops, forward = trained.preprocessing, trained.crops, trained.forward
        side = preprocessing.image_size
        inputs = tf.map_fn(
            lambda image: preprocessing.inputs(image, crops),
            images,
            fn_output_signature=tf.TensorSpec(
                (crops**2, side, side, preprocessing.channels), tf.float32
            ),
        )
        return tf.add_n([forward(inputs[:, k])["logits"] for k in range(crops**2)]) / crops**2


@dataclass(frozen=True)
class Routing:
    """The accuracy of routes where the true case is known.

    Attributes:
        names: K names of cases.
        confusion: int64 [K, K], rows = true, columns = routed.
        accuracy: share of images that went to their own case, with Wilson's interval.
    """

    names: tuple[str, ...]
    confusion: np.ndarray
    accuracy: Interval


def routing(true: Sequence[str], routed: Sequence[str]) -> Routing | None:
    """Compares routes with the true cases.

    Args:
        true: [n]; "" = not known.
        routed: [n].

    Returns:
        Over the images whose case is known; None without any.
    """
    pairs = [(t, r) for t, r in zip(true, routed, strict=True) if t]
    if not pairs:
        return None
    names = tuple(sorted({name for pair in pairs for name in pair}))
    index: Mapping[str, int] = {name: k for k, name in enumerate(names)}
    rows, columns = (np.array([index[p[side]] for p in pairs], np.int64) for side in (0, 1))
    return Routing(names, confusion_matrix(rows, columns, len(names)),
                   wilson_interval(rows == columns))  # fmt: skip
