"""Optimizers by the names that `--optimizer` takes, with learning rates for single variables."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.optim.lars import LARS


class PerVariableRates:
    """Mixin before a Keras optimizer: scales the rate that each variable is updated with.

    Scaling gradients would not do: Adam divides it out again. What is scaled here is the rate, so
    that a variable goes as under an optimizer of its own with that rate, decoupled weight decay
    (AdamW) included.
    """

    def set_rate_factors(self, factors: Sequence[float]) -> None:
        """Sets the factors, in the order in which `build` gets the variables."""
        self._rate_factors = list(factors)

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one variable."""
        optimizer: Any = self
        factor = self._factor(variable)
        rate = learning_rate if factor == 1 else learning_rate * tf.cast(factor, variable.dtype)
        if self._decoupled and optimizer._use_weight_decay(variable):
            decay = tf.cast(optimizer.weight_decay, variable.dtype) * tf.cast(rate, variable.dtype)
            variable.assign_sub(variable * decay)
        kind: Any = super()
        kind.update_step(gradient, variable, rate)

    @property
    def _decoupled(self) -> bool:
        """True if weights decay beside the gradient (AdamW), not as a part of it (LARS)."""
        return isinstance(self, keras.optimizers.AdamW)

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        """Does nothing: `update_step` decays, as it knows the rate of its variable."""

    def _factor(self, variable: keras.Variable | tf.Variable) -> float:
        optimizer: Any = self
        return self._rate_factors[optimizer._get_variable_index(variable)]


def with_rate_factors(kind: type[keras.optimizers.Optimizer]) -> type[keras.optimizers.Optimizer]:
    """The class of an optimizer that takes `set_rate_factors`."""
    return type(f"PerVariable{kind.__name__}", (PerVariableRates, kind), {})


def decayed_rates(groups: Sequence[Sequence[keras.Variable]], decay: float) -> Mapping[int, float]:
    """Factors that shrink from the output of a network to its input.

    Layer-wise learning-rate decay as in ELECTRA (Clark et al. 2020) and BEiT (Bao et al. 2021):
    what comes last keeps the rate, every group before has `decay` times the rate of the next.

    Args:
        groups: Variables by group, from the input to the output.
        decay: In (0, 1].

    Returns:
        Factor by `id` of the variable.
    """
    last = len(groups) - 1
    return {id(v): decay ** (last - i) for i, group in enumerate(groups) for v in group}


OPTIMIZERS = ("lars", "momentum", "adam", "adamw")


def build_optimizer(
    name: str,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    supervised_head: Sequence[keras.Variable] = (),
    variables: Sequence[keras.Variable] | None = None,
    rate_factors: Mapping[int, float] | None = None,
) -> keras.optimizers.Optimizer:
    """The optimizer of a name. Under a strategy, call it inside the scope.

    Args:
        name: `lars`; `momentum` (SGD with Nesterov momentum); `adam`; `adamw` (decoupled decay).
        learning_rate: float or schedule.
        momentum: of `lars` and `momentum`.
        weight_decay: of `lars` (in the gradient) and `adamw` (beside it); for the other two it
            belongs to the loss, see `simclr_tf.losses.weight_decay`.
        supervised_head: kernel and bias of the supervised head: neither decayed nor adapted by
            LARS.
        variables: trainable variables to build it on; None to build it later. Vectors among them
            (biases, scales and offsets) are not decayed by `adamw`; LARS leaves vectors alone
            anyhow.
        rate_factors: Factor on the learning rate by `id` of a variable, of all `variables`, see
            `decayed_rates`; None = all have the same rate.

    Raises:
        UserError: for another name.
    """
    kinds = {
        "lars": LARS,
        "momentum": keras.optimizers.SGD,
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
    }
    if name not in kinds:
        raise UserError(f"there is no optimizer {name!r}; choose one of {', '.join(OPTIMIZERS)}")
    kind = kinds[name] if rate_factors is None else with_rate_factors(kinds[name])
    optimizer: keras.optimizers.Optimizer
    if name == "lars":
        optimizer = kind(learning_rate, momentum, weight_decay)
        optimizer.exclude_from_weight_decay(list(supervised_head))
    elif name == "momentum":
        optimizer = kind(learning_rate, momentum=momentum, nesterov=True)
    elif name == "adam":
        optimizer = kind(learning_rate)
    else:
        optimizer = kind(learning_rate, weight_decay=weight_decay)
        vectors = [v for v in variables or () if len(v.shape) <= 1]
        optimizer.exclude_from_weight_decay(vectors)
    if rate_factors is not None:
        optimizer.set_rate_factors([rate_factors[id(v)] for v in variables or ()])
    if variables is not None:
        optimizer.build(list(variables))
    return optimizer
