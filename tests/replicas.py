"""Several replicas on one machine's CPU."""

import tensorflow as tf


def mirrored(replicas: int) -> tf.distribute.MirroredStrategy:
    """A strategy over the first logical CPUs.

    Sums go over one device: TensorFlow's collectives remember their group's size for the life of
    the process, so that strategies of two and of four replicas could not both be tested.
    """
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(replicas)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def per_replica(strategy: tf.distribute.Strategy, values: list[tf.Tensor]) -> tf.Tensor:
    """One value for every replica, to be passed to `strategy.run`."""
    return strategy.experimental_distribute_values_from_function(
        lambda context: values[context.replica_id_in_sync_group]
    )
