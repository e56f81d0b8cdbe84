"""Base classes and shared parts of the methods of pretraining.

A pretraining method has two parts: `features` and `targets` see every image by itself, but for
BatchNorm; `losses` sees the whole batch. So the first part may run on a few images at a time
(`training.gradients.MicroBatches`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import keras
import tensorflow as tf

from simclr_tf.losses.supervised import accuracy, supervised_loss
from simclr_tf.models.architectures import NUM_GROUPS
from simclr_tf.models.batch_norm import BatchNorm
from simclr_tf.models.simclr import (
    ForwardOutputs,
    ProjectionPart,
    SimCLREncoder,
    SimCLRModel,
)


@dataclass(frozen=True)
class StepOutputs:
    """Results of one step on one replica.

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
class HealthCheck:
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
        """True if a value of the metric is a bad sign."""
        return value > self.limit if self.kind == "above" else value < self.limit


class Extension:
    """Base of what a method owns beside the network; itself it owns nothing.

    Create it where the network is created: under a strategy in its scope, in its precision.
    """

    signs: tuple[HealthCheck, ...] = ()
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
        """Problems that can be foreseen with so many training images, one sentence each."""
        return []

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """Trainable variables of the layers."""
        return [v for layer in self.layers for v in layer.trainable_variables]

    @property
    def undecayed_variables(self) -> list[keras.Variable]:
        """Variables of the layers that the L2 term leaves alone: scales and offsets of norms."""
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
    """The method itself if it is an `Extension`, else one that owns nothing."""
    return method if isinstance(method, Extension) else Extension()


def assign_all(variables: Sequence[keras.Variable], values: Sequence[tf.Tensor]) -> None:
    """Sets variables from within the replicas, all of which must bring the same values."""

    def assign(strategy: tf.distribute.Strategy, new: list[tf.Tensor]) -> None:
        for variable, value in zip(variables, new, strict=True):
            strategy.extended.update(
                variable.value, lambda own, v: own.assign(v), args=(value,), group=False
            )

    tf.distribute.get_replica_context().merge_call(assign, args=(list(values),))


ByView: TypeAlias = dict[int, tf.Tensor]
BEHIND_POOL = NUM_GROUPS + 1  # see `StagedBackbone.endpoints`


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

        By default those of both views, each normalised by its own batch.

        Args:
            images: Views [2, b, S, S, C].
            small: Small crops [n, b, s, s, C], for methods that take any.
        """
        return {v: self._model.encoder(images[v], training=True) for v in range(2)}

    def targets(self, images: tf.Tensor) -> ByView:
        """Representations by a network that gets no gradient; by default none."""
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


_COLLAPSED_SPREAD = 0.02
PREDICTOR_CURE = "raise --predictor_rate, lower the learning rate, or take a larger batch"


def both_views(
    model: SimCLRModel, features: ByView, output: Literal["all", "unnormalised"]
) -> list[ForwardOutputs]:
    """The outputs of the heads for each of two views, each normalised by its own batch.

    Args:
        model: The network.
        features: Representations [b, D] of views 0 and 1.
        output: Whether the projection is normalised (`all`).
    """
    return [heads(model, features[view], output) for view in range(2)]


def collapse_sign(cure: str = "lower the learning rate, or take a larger batch") -> HealthCheck:
    """Projections that are the same for every image; see `losses.cosine.projection_spread`.

    Args:
        cure: What to do about it.
    """
    return HealthCheck(
        "projection_spread",
        "below",
        _COLLAPSED_SPREAD,
        f"different images have nearly the same projection: it collapses; {cure}",
    )


def with_probe(
    loss: tf.Tensor,
    metrics: dict[str, tf.Tensor],
    logits: list[tf.Tensor | None],
    labels: tf.Tensor,
    carried: tuple[tf.Tensor, ...] = (),
) -> StepOutputs:
    """The outputs of a step, the head's loss and accuracy added where there is a head.

    Args:
        loss: The method's own.
        metrics: The method's own.
        logits: Of the head, on features without gradient, [b, classes] for each view; None
            without a head.
        labels: Class numbers [b], -1 = none.
        carried: See `StepOutputs`.
    """
    known = [tf.convert_to_tensor(view) for view in logits if view is not None]
    if known:
        repeated = tf.concat([labels] * len(known), axis=0)
        joined = tf.concat(known, axis=0)
        supervised = supervised_loss(joined, repeated)
        loss += tf.cast(supervised, loss.dtype)
        metrics = {
            **metrics,
            "supervised_loss": supervised,
            "supervised_acc": accuracy(joined, repeated),
        }
    return StepOutputs(loss, metrics, carried)
