"""Logits and features of whole splits, and the scores of an epoch computed from them."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import tensorflow as tf

from finetune.classifier import Classifier
from finetune.data import VALIDATION, LabeledData
from finetune.inputs import ImageSteps
from simclr_tf.evaluation import metrics
from simclr_tf.evaluation.metrics import softmax
from simclr_tf.training.distribution import Devices
from simclr_tf.training.evaluator import ImageOutputs
from simclr_tf.training.health import check_outputs

_ROWS = 8192


class EpochScorer(Protocol):
    """Gives the logits of a whole split."""

    def logits(self, split: str) -> np.ndarray:
        """Logits float32 [n, K] of every image, in the order of the manifest."""
        ...


class ImageScorer:
    """Runs the whole network over the images.

    Args:
        model: The classifier.
        data: The images.
        steps: Steps from decoded image to network input.
        devices: The devices that it runs on.
        batch_size: Images of a pass.
    """

    def __init__(
        self,
        model: Classifier,
        data: LabeledData,
        steps: ImageSteps,
        devices: Devices,
        batch_size: int,
    ) -> None:
        self._data = data
        self._evaluator = steps.evaluator(model.features_and_logits, devices, batch_size)

    def features(self, split: str) -> ImageOutputs:
        """The features of a split's images with the weights as they are."""
        return self._evaluator.outputs(self._data.sources[split])

    def logits(self, split: str) -> np.ndarray:
        """See `EpochScorer`."""
        logits = self._evaluator.outputs(self._data.sources[split]).logits
        assert logits is not None
        return logits


class FeatureScorer:
    """Keeps the features of a frozen backbone, so that only the head runs again.

    Args:
        model: The classifier; its backbone stays as it is.
        data: The images.
        steps: Steps from decoded image to network input.
        devices: The devices that it runs on.
        batch_size: Images of a pass.
    """

    def __init__(
        self,
        model: Classifier,
        data: LabeledData,
        steps: ImageSteps,
        devices: Devices,
        batch_size: int,
    ) -> None:
        self._data = data
        self._known: dict[str, ImageOutputs] = {}
        self._head = tf.function(model.head, reduce_retracing=True)

        def forward(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"features": tf.cast(model.features(images), tf.float32)}

        self._evaluator = steps.evaluator(forward, devices, batch_size)

    def features(self, split: str) -> ImageOutputs:
        """The features of a split's images, computed on first use."""
        if split not in self._known:
            self._known[split] = self._evaluator.outputs(self._data.sources[split])
        return self._known[split]

    def logits(self, split: str) -> np.ndarray:
        """See `EpochScorer`."""
        features = self.features(split).features
        parts = (features[i : i + _ROWS] for i in range(0, len(features), _ROWS))
        logits = np.concatenate([self._head(tf.constant(part)).numpy() for part in parts])
        check_outputs("logits", logits)
        return logits


def split_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The numbers of a split in an epoch, over all its labelled images at once.

    Args:
        logits: [n, K].
        labels: Class numbers [n], -1 = none.

    Returns:
        `loss` (mean negative log likelihood, without weights and smoothing, so that splits and
        runs can be compared), `accuracy`, `balanced_accuracy`, `roc_auc` (mean over classes, each
        against the rest).
    """
    known = labels >= 0
    labels, probabilities = labels[known], softmax(logits[known])
    predicted = probabilities.argmax(axis=1)
    return {
        "loss": metrics.log_loss(labels, probabilities),
        "accuracy": metrics.accuracy(labels, predicted),
        "balanced_accuracy": metrics.balanced_accuracy(labels, predicted),
        "roc_auc": metrics.roc_auc(labels, probabilities),
    }


def epoch_scores(
    data: LabeledData, scorer: EpochScorer, *, score_train: bool
) -> Callable[[int], dict[str, float]]:
    """Returns a function that scores validation and, if asked, the training set; never test.

    Args:
        data: The images.
        scorer: Gives their logits.
        score_train: Whether the training set is scored.

    Returns:
        Step -> `train/loss`, ..., `validation/loss`, ...
    """
    splits = {"train": data.train_split} if score_train else {}
    if data.has_labels(VALIDATION):
        splits[VALIDATION] = VALIDATION

    def scores(step: int) -> dict[str, float]:
        return {
            f"{name}/{quantity}": value
            for name, split in splits.items()
            for quantity, value in split_scores(
                scorer.logits(split), data.sources[split].labels()
            ).items()
        }

    return scores
