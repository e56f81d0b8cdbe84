"""What the training loop asks of a method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import keras
import tensorflow as tf

from simclr_tf.models.batch_norm import BatchNorm


@dataclass(frozen=True)
class StepOutputs:
    """What one step computed on one replica.

    Attributes:
        loss: Scalar whose gradient trains the network, without weight decay.
        metrics: Scalars for the log, by name.
        carried: What `Extension.after_update` gets after the optimizer's update; the same on every
            replica.
    """

    loss: tf.Tensor
    metrics: dict[str, tf.Tensor]
    carried: tuple[tf.Tensor, ...] = ()


class Method(Protocol):
    """A way to learn: the losses of a batch."""

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> StepOutputs:
        """Computes the losses of a replica's batch.

        Args:
            images: Views [V, b, S, S, C], float32 in [0, 1]; view v of image i is `images[v, i]`.
            labels: Class numbers [b], int64, -1 where there is none.
        """
        ...


@dataclass(frozen=True)
class Sign:
    """A number in the log that tells that a method learns nothing, or collapses.

    Attributes:
        metric: Its name in the log.
        kind: Whether it is bad `above` the limit or `below` it.
        limit: In the metric's unit.
        meaning: What it means and what to do, for the warning.
    """

    metric: str
    kind: Literal["above", "below"]
    limit: float
    meaning: str

    def seen(self, value: float) -> bool:
        """Whether a value of the metric is a bad sign."""
        return value > self.limit if self.kind == "above" else value < self.limit


class Extension:
    """What a method may own beside the network; as it stands here, nothing.

    Create it where the network is created: under a strategy in its scope, in its precision.
    """

    signs: tuple[Sign, ...] = ()
    rate_factor: float = 1.0
    """On the learning rate of `layers`; at least 0, where they stay as drawn."""

    @property
    def layers(self) -> Sequence[keras.layers.Layer]:
        """Built layers that train with the network, such as a predictor."""
        return ()

    @property
    def state(self) -> dict[str, keras.Variable]:
        """Variables that no gradient moves, by a name without slash: a queue, a counter."""
        return {}

    def begin(self) -> None:
        """Called before the first step of a run, when the network has its starting weights."""

    def after_update(self, carried: tuple[tf.Tensor, ...]) -> None:
        """Called on every replica after the optimizer's update; see `assign_all`."""

    def warnings(self, num_examples: int) -> list[str]:
        """What can be known to go wrong with so many training images, one sentence a problem."""
        return []

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """Of the layers."""
        return [v for layer in self.layers for v in layer.trainable_variables]

    @property
    def undecayed_variables(self) -> list[keras.Variable]:
        """Of the layers, what the L2 term of a loss leaves alone: scales and offsets of norms."""
        parts = [part for layer in self.layers for part in layer._flatten_layers()]
        norms = [part for part in parts if isinstance(part, BatchNorm)]
        return [v for norm in norms for v in norm.trainable_variables]

    def checkpoint_variables(self) -> dict[str, tf.Variable]:
        """Everything that a run must find again to go on exactly, by its key in a checkpoint."""
        layers = {
            f"method/layers/{i}/{j}": variable.value
            for i, layer in enumerate(self.layers)
            for j, variable in enumerate(layer.variables)
        }
        return {**layers, **{f"method/{name}": v.value for name, v in self.state.items()}}


def extension_of(method: Method) -> Extension:
    """What a method owns beside the network."""
    return method if isinstance(method, Extension) else Extension()


def assign_all(variables: Sequence[keras.Variable], values: Sequence[tf.Tensor]) -> None:
    """Sets variables from within the replicas, all of which must bring the same values."""

    def assign(strategy: tf.distribute.Strategy, new: list[tf.Tensor]) -> None:
        for variable, value in zip(variables, new, strict=True):
            strategy.extended.update(
                variable.value, lambda own, v: own.assign(v), args=(value,), group=False
            )

    tf.distribute.get_replica_context().merge_call(assign, args=(list(values),))
