"""Optimizers by the names that `--optimizer` takes."""

from collections.abc import Mapping, Sequence

import keras

from data_prep.errors import UserError
from simclr_tf.optim.lars import LARS
from simclr_tf.optim.layerwise import with_rate_factors

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
