"""Supervised training of a head, some blocks or the whole network; distillation of a teacher.

Chen et al. 2020, "Big Self-Supervised Models are Strong Semi-Supervised Learners", section 2.
"""

import tensorflow as tf

from simclr_tf.losses.distillation import distillation_loss
from simclr_tf.losses.supervised import accuracy, supervised_loss
from simclr_tf.methods.base import StepOutputs
from simclr_tf.models.simclr import ProjectionPart, SimCLRModel


class Supervised:
    """Softmax cross-entropy on one view of each image.

    Args:
        model: The network, frozen where it is to be.
        projection_layers: Which layers of the projection head run: those up to the supervised
            head, or, as in the reference, all.
        first_stage: Where the network begins, see `StagedBackbone.endpoints`: above 0, the method
            gets the outputs of the frozen stages before in the place of images.
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


class Distillation:
    """Cross-entropy to the teacher's probabilities, and to true labels where there are any.

    Both networks see the same view.

    Args:
        model: The student.
        teacher: The teacher; runs in inference mode and never changes.
        temperature: Both networks' logits are divided by it.
        labelled_weight: Weight of the true labels, in [0, 1]; the teacher has the rest.
        projection_layers: Which layers of the student's projection head run.
    """

    def __init__(
        self,
        model: SimCLRModel,
        teacher: SimCLRModel,
        temperature: float,
        labelled_weight: float = 0.0,
        projection_layers: ProjectionPart = "used",
    ) -> None:
        self._model, self._teacher = model, teacher
        self._temperature, self._labelled_weight = temperature, labelled_weight
        self._projection_layers = projection_layers

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> StepOutputs:
        """Losses of one view [1, b, S, S, C] and labels [b], -1 = none; see `Method`."""
        taught = self._teacher.forward(images[0], projection_layers="used")
        outputs = self._model.forward(
            images[0], training=True, projection_layers=self._projection_layers
        )
        soft = distillation_loss(outputs.logits, taught.logits, self._temperature)
        same = tf.equal(tf.argmax(outputs.logits, 1), tf.argmax(taught.logits, 1))
        loss = (1 - self._labelled_weight) * soft
        metrics = {
            "distillation_loss": soft,
            "teacher_agreement": tf.reduce_mean(tf.cast(same, tf.float32)),
        }
        if self._labelled_weight:
            supervised = supervised_loss(outputs.logits, labels)
            loss += self._labelled_weight * supervised
            metrics["supervised_loss"] = supervised
            metrics["supervised_acc"] = accuracy(outputs.logits, labels)
        return StepOutputs(loss, metrics)
