"""Several replicas on one machine's CPU."""

import tensorflow as tf

from simclr_tf.training import distribution


def mirrored(replicas: int) -> tf.distribute.MirroredStrategy:
    """A strategy over the first logical CPUs, as the product makes it."""
    return distribution.mirrored([f"CPU:{i}" for i in range(replicas)], "CPU")


def per_replica(strategy: tf.distribute.Strategy, values: list[tf.Tensor]) -> tf.Tensor:
    """One value for every replica, to be passed to `strategy.run`."""
    return strategy.experimental_distribute_values_from_function(
        lambda context: values[context.replica_id_in_sync_group]
    )
