"""One training step of a classifier: what it computes from images and labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from finetune.classifier import Classifier
from finetune.config import LossSettings
from simclr_tf.losses.supervised import accuracy, classification_loss
from simclr_tf.methods.base import StepOutputs


@dataclass(frozen=True)
class Classification:
    """The loss that the settings ask for, on one view of each image.

    Attributes:
        model: The classifier.
        settings: Of the loss.
        class_weights: One a class; None = all 1.
        iterations: The optimizer's count of steps, which with `seed` decides what dropout drops: a
            run that goes on drops what it would have dropped.
        seed: The run's seed.
        from_features: What the method gets for images are features, computed before.
    """

    model: Classifier
    settings: LossSettings
    class_weights: Sequence[float] | None
    iterations: keras.Variable
    seed: int = 0
    from_features: bool = False

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> StepOutputs:
        """Losses of one view [1, b, H, W, C] (or features [1, b, D]) and labels [b]."""
        seed = self._dropout_seed()
        if self.from_features:
            logits = self.model.head(images[0], training=True, seed=seed)
        else:
            logits = self.model.logits(images[0], training=True, seed=seed)
        loss = classification_loss(
            logits,
            labels,
            label_smoothing=self.settings.label_smoothing,
            focal_gamma=self.settings.focal_gamma,
            class_weights=self.class_weights,
        )
        metrics = {"supervised_loss": loss, "supervised_acc": accuracy(logits, labels)}
        return StepOutputs(loss, metrics)

    def _dropout_seed(self) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group if context else 0
        step = tf.cast(tf.convert_to_tensor(self.iterations), tf.int64)
        # Room for the layers of a head below, and for replicas above.
        position = tf.cast(replica, tf.int64) * 2**48 + step * 256
        return tf.stack([tf.constant(self.seed, tf.int64), position])
