"""The gradients of one replica's loss, ready to be summed over replicas."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from simclr_tf.losses.weight_decay import WeightDecay
from simclr_tf.methods.base import StepOutputs


class Found(NamedTuple):
    """What a step has found before it updates anything.

    Attributes:
        gradients: For each trained variable; None where the loss does not depend on it.
        metrics: The step's scalars, by name.
        carried: See `StepOutputs`.
    """

    gradients: list[tf.Tensor | None]
    metrics: dict[str, tf.Tensor]
    carried: tuple[tf.Tensor, ...]


class LossGradients:
    """Gradients of a method's loss and the L2 term, divided by the number of replicas.

    Args:
        trainable: What trains.
        weight_decay: The L2 term.
        num_replicas: Whose gradients are summed.
    """

    def __init__(
        self, trainable: Sequence[keras.Variable], weight_decay: WeightDecay, num_replicas: int
    ) -> None:
        self.variables = [v.value for v in trainable]
        self._weight_decay, self._num_replicas = weight_decay, num_replicas

    def __call__(
        self, losses: Callable[[], StepOutputs], inputs: Sequence[tf.Tensor] = ()
    ) -> tuple[Found, list[tf.Tensor | None]]:
        """Computes losses and gradients.

        Args:
            losses: Computes the method's losses.
            inputs: What they are computed from, if that is to get gradients too.

        Returns:
            What was found for the variables, and the gradients of the inputs.
        """
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = losses()
            decay = tf.cast(self._weight_decay(), outputs.loss.dtype)
            total = outputs.loss + decay
            scaled = total / self._num_replicas
        gradients = tape.gradient(scaled, [*self.variables, *inputs])
        metrics = {"total_loss": total, "weight_decay": decay, **outputs.metrics}
        own = len(self.variables)
        return Found(gradients[:own], metrics, outputs.carried), gradients[own:]
