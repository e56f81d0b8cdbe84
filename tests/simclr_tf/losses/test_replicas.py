import numpy as np
import tensorflow as tf

from simclr_tf.losses.replicas import gather_rows
from tests.replicas import mirrored, per_replica
from tests.simclr_tf.losses.common import on_replicas, rows


def test_every_replica_gets_the_rows_of_all_in_order_and_knows_its_own() -> None:
    whole = rows(0, 3, 4, 2)
    strategy = mirrored(2)
    own = per_replica(strategy, [tf.constant(part) for part in np.split(whole, 2, axis=1)])
    gathered, first = strategy.run(tf.function(gather_rows), (own,))
    for replica in range(2):
        np.testing.assert_array_equal(gathered.values[replica], whole)
        assert int(first.values[replica]) == 2 * replica


def test_the_gradient_of_a_row_is_that_of_the_whole_batch() -> None:
    whole = rows(1, 4, 2)
    _, (gradient,) = on_replicas(lambda x: tf.reduce_sum(gather_rows(x)[0] ** 3), [whole], 2)
    np.testing.assert_allclose(gradient, 3 * whole**2, rtol=1e-12)
