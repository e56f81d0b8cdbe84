"""Supervised training of a head, some blocks, or the whole network."""

import tensorflow as tf

from simclr_tf.losses.supervised import accuracy, supervised_loss
from simclr_tf.methods.base import StepOutputs
from simclr_tf.models.simclr import ProjectionPart, SimCLRModel


class Supervised:
    """Softmax cross-entropy on one view of each image.

    Args:
        model: The network, frozen where it is to be.
        projection_layers: Which layers of the projection head run: those up to the supervised
            head, or, as in the reference, all.
    """

    def __init__(self, model: SimCLRModel, projection_layers: ProjectionPart = "used") -> None:
        self._model, self._projection_layers = model, projection_layers

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> StepOutputs:
        """Losses of one view [1, b, S, S, C] and labels [b]; see `Method`."""
        outputs = self._model.forward(
            images[0], training=True, projection_layers=self._projection_layers
        )
        loss = supervised_loss(outputs.logits, labels)
        metrics = {"supervised_loss": loss, "supervised_acc": accuracy(outputs.logits, labels)}
        return StepOutputs(loss, metrics)
