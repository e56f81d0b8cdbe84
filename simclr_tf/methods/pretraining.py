"""Methods of pretraining in two parts: what networks make of images, and the losses of that.

The first part sees every image by itself, but for BatchNorm; the second one sees the whole batch.
So the first may run on a few images at a time (`training.micro_batches`).
"""

from abc import ABC, abstractmethod
from typing import TypeAlias

import tensorflow as tf

from simclr_tf.methods.base import Extension, StepOutputs
from simclr_tf.models.architecture import NUM_GROUPS
from simclr_tf.models.simclr import (
    ForwardOutputs,
    ProjectionPart,
    SimCLREncoder,
    SimCLRModel,
)

ByView: TypeAlias = dict[int, tf.Tensor]
BEHIND_POOL = NUM_GROUPS + 1  # see `ResNet.endpoints`


class Pretraining(Extension, ABC):
    """A method that learns from representations of two views; beside them, of small crops.

    Representations are [b, D], by the number of the view; small crops follow the views.

    Args:
        model: The network.
    """

    def __init__(self, model: SimCLRModel) -> None:
        self._model = model

    @property
    def encoders(self) -> list[SimCLREncoder]:
        """The networks that `features` and `targets` run."""
        return [self._model.encoder]

    def features(self, images: tf.Tensor, small: tf.Tensor | None = None) -> ByView:
        """Representations by the network that trains.

        As it stands here: of both views, each normalised by its own batch.

        Args:
            images: Views [2, b, S, S, C].
            small: Small crops [n, b, s, s, C], for methods that take any.
        """
        return {v: self._model.encoder(images[v], training=True) for v in range(2)}

    def targets(self, images: tf.Tensor) -> ByView:
        """Representations by a network that gets no gradient; as it stands here, none."""
        return {}

    @abstractmethod
    def losses(self, features: ByView, targets: ByView, labels: tf.Tensor) -> StepOutputs:
        """Losses of a replica's batch.

        Args:
            features: From `features`.
            targets: From `targets`.
            labels: Class numbers [b], -1 = none.
        """

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, small: tf.Tensor | None = None
    ) -> StepOutputs:
        """Losses of a replica's batch; see `Method`.

        Args:
            images: Views [2, b, S, S, C].
            labels: Class numbers [b], -1 = none.
            small: Small crops [n, b, s, s, C], for methods that take any.
        """
        return self.losses(self.features(images, small), self.targets(images), labels)


def heads(model: SimCLRModel, features: tf.Tensor, output: ProjectionPart) -> ForwardOutputs:
    """Projection and supervised head on representations [b, D]; the latter teaches nothing else.

    Args:
        model: The network.
        features: The representations.
        output: Whether the projection is normalised (`all`) or not (`unnormalised`).
    """
    return model.forward(
        features,
        training=True,
        stop_head_gradient=True,
        projection_layers=output,
        first_stage=BEHIND_POOL,
    )
