"""A learning rate of its own for every variable: the usual one, times a factor."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf


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
        """Whether weights shrink beside the gradient, and not, as in LARS, as a part of it."""
        return isinstance(self, keras.optimizers.AdamW)

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        """Nothing: `update_step` does it, which knows the rate of its variable."""

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
