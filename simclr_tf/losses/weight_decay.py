"""The L2 term of the loss.

What it covers depends on the optimizer, as in the SimCLR code: LARS adds weight decay to its own
gradients and leaves only the supervised head's kernel to the loss; AdamW shrinks weights itself;
the others leave every trained weight to it but the scales and offsets of normalisation.
"""

from collections.abc import Iterable, Sequence

import keras
import tensorflow as tf


class WeightDecay:
    """weight_decay / 2 x sum of squares of some variables.

    Args:
        variables: what shrinks; chosen by object, see `decayed_variables`.
        weight_decay: the factor, >= 0.
    """

    def __init__(self, variables: Sequence[keras.Variable], weight_decay: float) -> None:
        self.variables = list(variables)
        self.weight_decay = weight_decay

    def __call__(self) -> tf.Tensor:
        """The scalar; 0 if no variable shrinks."""
        if not self.variables or self.weight_decay == 0:
            return tf.constant(0.0, keras.config.floatx())
        terms = [tf.nn.l2_loss(tf.convert_to_tensor(v)) for v in self.variables]
        return self.weight_decay * tf.add_n(terms)


def decayed_variables(
    optimizer: str,
    trainable: Iterable[keras.Variable],
    supervised_head: Iterable[keras.Variable],
    normalization: Iterable[keras.Variable],
) -> list[keras.Variable]:
    """The variables that the L2 term of the loss covers.

    Args:
        optimizer: name as in `simclr_tf.optim.factory`.
        trainable: everything that trains.
        supervised_head: kernel and bias of the supervised head.
        normalization: scales and offsets of normalisation layers.

    Returns:
        A part of `trainable`, in its order.
    """
    head, norms = {id(v) for v in supervised_head}, {id(v) for v in normalization}
    if optimizer == "lars":
        return [v for v in trainable if id(v) in head and len(v.shape) > 1]
    if optimizer == "adamw":
        return []
    return [v for v in trainable if id(v) not in norms]
