"""The momentum network, which follows the trained one slowly, and the queue of its projections."""

import math

import keras
import tensorflow as tf

from simclr_tf.methods.base import BEHIND_POOL, assign_all
from simclr_tf.models.simclr import SimCLREncoder, SimCLRModel


class MomentumNetwork:
    """A network whose weights are an exponential moving average of the online network's.

    MoCo (He et al. 2020, equation 2) keeps the momentum; BYOL (Grill et al. 2020, section 3.2)
    lets it rise to 1 along a cosine. BatchNorm's moving statistics are the momentum network's own.

    Args:
        online: The network that trains.
        target: Another of the same architecture; what trains there follows what trains here.
        momentum: Weight of the old values, at the first step.
        total_steps: Steps of the run.
        cosine: Let the momentum rise to 1 over the run.
    """

    def __init__(
        self,
        online: SimCLREncoder,
        target: SimCLRModel,
        momentum: float,
        total_steps: int,
        cosine: bool,
    ) -> None:
        self._online, self._target = online, target.encoder
        self._momentum, self._total_steps, self._cosine = momentum, total_steps, cosine
        self.steps = counter()
        self.copy()

    @property
    def encoder(self) -> SimCLREncoder:
        """The momentum network itself."""
        return self._target

    def copy(self) -> None:
        """Takes over all weights and statistics; not for within the replicas."""
        pairs = zip(self._target.variables, self._online.variables, strict=True)
        for mine, theirs in pairs:
            mine.assign(theirs.value.numpy())

    def features(self, images: tf.Tensor) -> tf.Tensor:
        """Representations [b, D] of images [b, S, S, C], normalised by the batch; no gradient."""
        return tf.stop_gradient(self._target(images, training=True))

    def projection(self, features: tf.Tensor) -> tf.Tensor:
        """Projections [b, d] of representations [b, D], normalised by the batch; no gradient."""
        _, hiddens = self._target.hiddens(
            features, training=True, first_stage=BEHIND_POOL, normalize_output=False
        )
        return tf.stop_gradient(hiddens[-1])

    def momentum(self) -> tf.Tensor:
        """The momentum of the coming update, a float64 scalar."""
        if not self._cosine:
            return tf.constant(self._momentum, tf.float64)
        step = tf.cast(tf.convert_to_tensor(self.steps), tf.float64)
        progress = tf.minimum(step / self._total_steps, 1.0)
        return 1 - (1 - self._momentum) * (tf.cos(math.pi * progress) + 1) / 2

    def follow(self) -> None:
        """One step towards the online network; on every replica, after its update."""
        share = 1 - self.momentum()
        targets, values = [], []
        pairs = zip(self._target.trainable_variables, self._online.trainable_variables, strict=True)
        for mine, theirs in pairs:
            old = tf.convert_to_tensor(mine)
            new = old + tf.cast(share, old.dtype) * (tf.convert_to_tensor(theirs) - old)
            targets.append(mine)
            values.append(new)
        assign_all([*targets, self.steps], [*values, tf.convert_to_tensor(self.steps) + 1])

    @property
    def state(self) -> dict[str, keras.Variable]:
        """Its variables and the count of its steps, for the checkpoint."""
        weights = {f"momentum_network_{i}": v for i, v in enumerate(self._target.variables)}
        return {**weights, "steps": self.steps}


def counter() -> keras.Variable:
    """A count of steps, from 0."""
    return keras.Variable("zeros", shape=(), dtype="int64", trainable=False, name="steps")


def enqueue(queue: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Appends rows and drops as many of the oldest, which stand first.

    Args:
        queue: [..., K, d].
        rows: [..., n, d], n <= K.

    Returns:
        [..., K, d].
    """
    return tf.ensure_shape(tf.concat([queue, rows], -2)[..., -queue.shape[-2] :, :], queue.shape)
