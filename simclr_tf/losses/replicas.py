"""The rows of all replicas, and the precision that losses compute in."""

import tensorflow as tf


def full_precision(x: tf.Tensor) -> tf.Tensor:
    """Half precision as float32; other types as they are."""
    return tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x


def gather_rows(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | int]:
    """The rows of every replica in the order of the global batch.

    Every replica adds its rows to zeros: unlike `all_gather`, this keeps the static shape. The
    gradient of a replica's rows is the sum over what all replicas make of them.

    Args:
        x: [..., b, d]; rows are the last axis but one.

    Returns:
        [..., N, d] with N = b x replicas, and the number of this replica's first row in it.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x, 0
    replicas, own = context.num_replicas_in_sync, context.replica_id_in_sync_group
    slot = tf.one_hot(own, replicas, dtype=x.dtype)[:, tf.newaxis, tf.newaxis]
    gathered = context.all_reduce(tf.distribute.ReduceOp.SUM, x[..., tf.newaxis, :, :] * slot)
    batch, dim = x.shape[-2], x.shape[-1]
    rows = -1 if batch is None else replicas * batch
    return tf.reshape(gathered, [*x.shape[:-2], rows, dim]), own * tf.shape(x)[-2]
