"""The gradients of one replica's loss, also of a large batch in the memory of a small one.

Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup".
First the network runs over the batch in micro-batches, and nothing is kept but the representations
[b, D]. Heads and losses then see the whole batch, on all replicas; that gives the gradients of what
they are made of, and of the representations. Then each micro-batch runs once more and pulls its
part of the latter back to the network. The sum is the gradient of the whole batch, for a third more
computation.

Only BatchNorm in the network knows of micro-batches: each is normalised by its own statistics, in
both passes, as in ghost batch normalisation (Hoffer et al. 2017, "Train longer, generalize better",
algorithm 1). The stored statistics go once a step to the mean of where the micro-batches of the
first pass would each have moved them; the second pass leaves them there. The heads' BatchNorm has
the whole batch.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.losses.weight_decay import WeightDecay
from simclr_tf.methods.base import ByView, Pretraining, StepOutputs
from simclr_tf.models.batch_norm import BatchNorm
from simclr_tf.models.simclr import SimCLREncoder


class StepGradients(NamedTuple):
    """Results of a step before it updates anything.

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
        trainable: The variables that train.
        weight_decay: The L2 term.
        num_replicas: Number of replicas, over which gradients are summed.
    """

    def __init__(
        self, trainable: Sequence[keras.Variable], weight_decay: WeightDecay, num_replicas: int
    ) -> None:
        self.variables = [v.value for v in trainable]
        self._weight_decay, self._num_replicas = weight_decay, num_replicas

    def __call__(
        self, losses: Callable[[], StepOutputs], inputs: Sequence[tf.Tensor] = ()
    ) -> tuple[StepGradients, list[tf.Tensor | None]]:
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
        return StepGradients(gradients[:own], metrics, outputs.carried), gradients[own:]


Rows: TypeAlias = Callable[[int], tf.Tensor]
"""From the number of a view to the rows [m] of the batch that are in a micro-batch."""

Part: TypeAlias = Callable[[Rows], tuple[tf.Tensor, ...]]
"""From rows to their views [V, m, S, S, C] and, if there are any, small crops [n, m, s, s, C].

Small crops are numbered on from the views.
"""


def check_size(size: int, rows: int) -> None:
    """Checks that micro-batches of this size make up a replica's batch.

    Args:
        size: Images of a micro-batch; 0 = there are none.
        rows: Images of a replica's batch.

    Raises:
        UserError: They do not.
    """
    if size and rows % size:
        near = max(d for d in range(1, min(size, rows) + 1) if rows % d == 0)
        raise UserError(
            f"does not divide the {rows} images that a replica has of a batch; give {near}, say",
            setting="microbatch",
            value=size,
        )


class MicroBatches:
    """Finds a step's gradients, on one replica, with the network seeing few images at a time.

    Views that are normalised by the same statistics could be paired by them (He et al. 2020,
    "Momentum Contrast", section 3.3). So the two views of an image are in different micro-batches
    where possible: first views are taken in blocks, second ones with a stride.

    Args:
        method: What trains; from now on its networks' BatchNorm never looks at other replicas.
        loss_gradients: The gradients of the whole batch's loss.
        size: Images of a micro-batch, which divides those of a replica's batch.
        jit_compile: Compile losses and passes with XLA.
    """

    def __init__(
        self,
        method: Pretraining,
        loss_gradients: LossGradients,
        size: int,
        jit_compile: bool = False,
    ) -> None:
        self._method, self._loss_gradients, self._size = method, loss_gradients, size
        norms = [norm for encoder in method.encoders for norm in _norms(encoder)]
        for norm in norms:
            norm.sync = False
        self._statistics = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]

        def made(function: Callable[..., Any]) -> Callable[..., Any]:
            return tf.function(function, jit_compile=True) if jit_compile else function

        self._represent = made(self._represented)
        self._losses = made(self._loss_of)
        self._pull_back = made(self._pulled_back)

    def gradients(self, part: Part, labels: tf.Tensor) -> StepGradients:
        """Gradients and scalars of a replica's batch.

        Args:
            part: Gives the images; called in each pass.
            labels: Class numbers [b], -1 = none.
        """
        number = tf.size(labels) // self._size
        features, targets = self._forward(part, number)
        found, cached = self._losses(features, targets, labels)
        pulled = self._backward(part, number, cached)
        total = [_sum(own, pulled.get(place)) for place, own in enumerate(found.gradients)]
        return found._replace(gradients=total)

    def _represented(self, *images: tf.Tensor) -> tuple[ByView, ByView]:
        return self._method.features(*images), self._method.targets(images[0])

    def _loss_of(
        self, features: ByView, targets: ByView, labels: tf.Tensor
    ) -> tuple[StepGradients, ByView]:
        found, cached = self._loss_gradients(
            lambda: self._method.losses(features, targets, labels), list(features.values())
        )
        return found, {
            view: tf.zeros_like(features[view]) if gradient is None else gradient
            for view, gradient in zip(features, cached, strict=True)
        }

    def _pulled_back(self, cached: ByView, *images: tf.Tensor) -> dict[int, tf.Tensor]:
        """The gradients of variables that the features depend on, by the variable's place."""
        with tf.GradientTape() as tape:
            features = self._method.features(*images)
        gradients = tape.gradient(features, self._loss_gradients.variables, output_gradients=cached)
        return {place: g for place, g in enumerate(gradients) if g is not None}

    def _forward(self, part: Part, number: tf.Tensor) -> tuple[ByView, ByView]:
        """The first pass: features and targets of the whole batch."""
        before = [tf.convert_to_tensor(v) for v in self._statistics]

        def one(i: tf.Tensor) -> tuple[ByView, ByView, list[tf.Tensor]]:
            _assign(self._statistics, before)
            features, targets = self._represent(*part(self._rows(i, number)))
            return features, targets, [tf.convert_to_tensor(v) for v in self._statistics]

        traced, outputs = _traced(one)
        features, targets, moved = tf.map_fn(
            traced, tf.range(number), fn_output_signature=outputs, parallel_iterations=1
        )
        _assign(self._statistics, [tf.reduce_mean(values, 0) for values in moved])
        features, targets = (
            {view: _in_order(view, parts) for view, parts in by_view.items()}
            for by_view in (features, targets)
        )
        return features, targets

    def _backward(self, part: Part, number: tf.Tensor, cached: ByView) -> dict[int, tf.Tensor]:
        """The second pass: gradients of what the features depend on."""
        settled = [tf.convert_to_tensor(v) for v in self._statistics]

        def one(i: tf.Tensor) -> dict[int, tf.Tensor]:
            rows = self._rows(i, number)
            own = {view: tf.gather(gradient, rows(view)) for view, gradient in cached.items()}
            return self._pull_back(own, *part(rows))

        traced, outputs = _traced(one)
        if not outputs:  # the whole network is frozen
            return {}
        total = tf.foldl(
            lambda total, i: tf.nest.map_structure(tf.add, total, traced(i)),
            tf.range(number),
            tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), outputs),
            parallel_iterations=1,
        )
        _assign(self._statistics, settled)
        return total

    def _rows(self, i: tf.Tensor, number: tf.Tensor) -> Rows:
        """Rows of a view in micro-batch i of `number`: first views by blocks, second by stride."""
        place = tf.range(self._size)
        return lambda view: place * number + i if view % 2 else i * self._size + place


def rows_of_views(inputs: Sequence[tf.Tensor], rows: Rows, axis: int) -> tuple[tf.Tensor, ...]:
    """A micro-batch of views and, if there are any, small crops.

    Args:
        inputs: Of each kind, views along one of the first two axes, rows along the other.
        rows: Gives the rows of a view.
        axis: Which of the two, 0 or 1, counts the views.
    """
    numbers = iter(range(sum(x.shape[axis] for x in inputs)))

    def picked(x: tf.Tensor) -> tf.Tensor:
        # Rows first, for a view of the whole batch would be a copy of it.
        views = [
            tf.gather(tf.gather(x, rows(next(numbers)), axis=1 - axis), v, axis=axis)
            for v in range(x.shape[axis])
        ]
        return tf.stack(views, axis)

    return tuple(picked(x) for x in inputs)


def _in_order(view: int, parts: tf.Tensor) -> tf.Tensor:
    """Joins micro-batches [n, m, D] of a view into the batch [b, D]; the inverse of `_rows`."""
    if view % 2:
        parts = tf.transpose(parts, [1, 0, 2])
    return tf.reshape(parts, [-1, parts.shape[-1]])


def _sum(a: tf.Tensor | None, b: tf.Tensor | None) -> tf.Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _norms(encoder: SimCLREncoder) -> list[BatchNorm]:
    """BatchNorm of the backbone; that of the projection head has the whole batch."""
    return [part for part in encoder.backbone()._flatten_layers() if isinstance(part, BatchNorm)]


def _assign(variables: Iterable[keras.Variable], values: Iterable[tf.Tensor]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _traced(function: Callable[[tf.Tensor], Any]) -> tuple[Callable[[tf.Tensor], Any], Any]:
    """A function of the number of a micro-batch, and what a loop over it must know beforehand."""
    concrete = tf.function(function, autograph=False).get_concrete_function(
        tf.TensorSpec([], tf.int32)
    )
    outputs = tf.nest.map_structure(
        lambda out: tf.TensorSpec(out.shape, out.dtype), concrete.structured_outputs
    )
    return concrete, outputs
