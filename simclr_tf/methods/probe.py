"""The supervised head that watches pretraining: it learns from labels and teaches nothing else."""

import tensorflow as tf

from simclr_tf.losses.supervised import accuracy, supervised_loss
from simclr_tf.methods.base import StepOutputs


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
