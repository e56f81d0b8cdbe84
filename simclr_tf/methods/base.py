"""What the training loop asks of a method."""

from dataclasses import dataclass
from typing import Protocol

import tensorflow as tf


@dataclass(frozen=True)
class StepOutputs:
    """What one step computed on one replica.

    Attributes:
        loss: Scalar whose gradient trains the network, without weight decay.
        metrics: Scalars for the log, by name.
    """

    loss: tf.Tensor
    metrics: dict[str, tf.Tensor]


class Method(Protocol):
    """A way to learn: the losses of a batch."""

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> StepOutputs:
        """Computes the losses of a replica's batch.

        Args:
            images: Views [V, b, S, S, C], float32 in [0, 1]; view v of image i is `images[v, i]`.
            labels: Class numbers [b], int64, -1 where there is none.
        """
        ...
