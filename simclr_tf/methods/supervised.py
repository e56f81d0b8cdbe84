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
        first_stage: Where the network begins, see `ResNet.endpoints`: above 0, what the method gets
            for images are the outputs of the frozen stages before.
    """

    def __init__(
        self,
        model: SimCLRModel,
        projection_layers: ProjectionPart = "used",
        first_stage: int = 0,
    ) -> None:
        self._model, self._projection_layers = model, projection_layers
        self._first_stage = first_stage

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> StepOutputs:
        """Losses of one view [1, b, S, S, C] and labels [b]; see `Method`."""
        outputs = self._model.forward(
            images[0],
            training=True,
            projection_layers=self._projection_layers,
            first_stage=self._first_stage,
        )
        loss = supervised_loss(outputs.logits, labels)
        metrics = {"supervised_loss": loss, "supervised_acc": accuracy(outputs.logits, labels)}
        return StepOutputs(loss, metrics)
