"""LARS, the optimizer of SimCLR pretraining with large batches."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

EETA_DEFAULT = 0.001


@keras.saving.register_keras_serializable(package="simclr_tf")
class LARS(keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling (You, Gitman and Ginsburg 2017, arXiv:1708.03888).

    Every adapted variable's step is scaled by eeta x |weight| / |gradient| (1 if either norm is
    0). Weight decay is added to the gradient before, so that it takes part in the ratio.

    Variables of rank 0 and 1 (biases, scales and offsets of normalisation) are excluded from both
    weight decay and adaptation; `exclude_from_weight_decay` and `exclude_from_layer_adaptation`
    exclude more of them, by the variable object. SimCLR excludes the supervised head as well.

    Args:
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        momentum: of the velocity.
        weight_decay: factor on the weights that are added to the gradient.
        use_nesterov: look ahead by one step of the momentum.
        classic_momentum: the velocity holds scaled steps (as in the paper); otherwise it holds
            gradients and the ratio is taken of the velocity ("popular" momentum).
        eeta: the trust coefficient.
        exclude_vectors: whether rank decides as told above; otherwise only the two methods do.
        name: of the optimizer.
        **kwargs: of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        use_nesterov: bool = False,
        classic_momentum: bool = True,
        eeta: float = EETA_DEFAULT,
        exclude_vectors: bool = True,
        name: str = "lars",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs
        )
        self.momentum = momentum
        self.use_nesterov = use_nesterov
        self.classic_momentum = classic_momentum
        self.eeta = eeta
        self.exclude_vectors = exclude_vectors
        self._not_adapted: set[Any] | None = None

    def exclude_from_layer_adaptation(self, var_list: Sequence[keras.Variable]) -> None:
        """Excludes variables from layer adaptation only.

        Without this call, whatever is excluded from weight decay is not adapted either.

        Args:
            var_list: the variables; a call replaces the list of the one before.
        """
        self._not_adapted = {self._var_key(variable) for variable in var_list}

    @property
    def momentums(self) -> list[keras.Variable]:
        """The velocity of every variable, in the order in which `build` got the variables."""
        return list(self._momentums)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates a velocity for every variable."""
        if self.built:
            return
        super().build(variables)
        self._momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one variable and its velocity."""
        dtype = variable.dtype
        rate = tf.cast(learning_rate, dtype)
        momentum = tf.constant(self.momentum, dtype)
        weight = tf.convert_to_tensor(variable)
        gradient = tf.cast(gradient, dtype)
        velocity = self._momentums[self._get_variable_index(variable)]
        if self.weight_decay and self._decays(variable):
            gradient += tf.constant(self.weight_decay, dtype) * weight
        step = gradient
        if self.classic_momentum:
            step = rate * self._trust(variable, weight, gradient) * gradient
        moved = momentum * tf.convert_to_tensor(velocity) + step
        update = momentum * moved + step if self.use_nesterov else moved
        if not self.classic_momentum:
            update = rate * self._trust(variable, weight, update) * update
        self.assign(velocity, moved)
        self.assign_sub(variable, update)

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        """Does nothing: the decay is part of the gradient here, not a shrinking of its own."""

    def _trust(self, variable: tf.Variable, weight: tf.Tensor, direction: tf.Tensor) -> tf.Tensor:
        """The layer's ratio, a scalar."""
        one = tf.ones([], weight.dtype)
        if not self._adapts(variable):
            return one
        weight_norm, norm = tf.norm(weight), tf.norm(direction)
        ratio = tf.constant(self.eeta, weight.dtype) * tf.math.divide_no_nan(weight_norm, norm)
        return tf.where((weight_norm > 0) & (norm > 0), ratio, one)

    def _is_vector(self, variable: tf.Variable) -> bool:
        return self.exclude_vectors and len(variable.shape) <= 1

    def _decays(self, variable: tf.Variable) -> bool:
        return not self._is_vector(variable) and self._use_weight_decay(variable)

    def _adapts(self, variable: tf.Variable) -> bool:
        if self._not_adapted is None:
            return self._decays(variable)
        return not self._is_vector(variable) and self._var_key(variable) not in self._not_adapted

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments; lists of excluded variables are not among them."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "use_nesterov": self.use_nesterov,
            "classic_momentum": self.classic_momentum,
            "eeta": self.eeta,
            "exclude_vectors": self.exclude_vectors,
        }
