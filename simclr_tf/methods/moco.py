"""MoCo: tell an image's other view from a queue of images seen before.

He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning"; with the
projection head, the views and the temperature of MoCo v2 (Chen et al. 2020, arXiv:2003.04297).
Where the paper shuffles batches between GPUs, BatchNorm here has the statistics of all of them, so
that they do not give the positive away either.
"""

import math

import keras
import tensorflow as tf

from simclr_tf.losses.info_nce import info_nce, positive_found
from simclr_tf.losses.replicas import gather_rows
from simclr_tf.methods.base import (
    ByView,
    HealthCheck,
    Pretraining,
    StepOutputs,
    assign_all,
    heads,
    with_probe,
)
from simclr_tf.methods.momentum import MomentumNetwork, enqueue
from simclr_tf.models.heads import unit_rows
from simclr_tf.models.simclr import SimCLREncoder, SimCLRModel

_NEAR_CHANCE = 0.985


class MoCo(Pretraining):
    """Contrast against a queue, whose keys come from a momentum network.

    Args:
        model: The network.
        momentum: The network that makes the keys.
        temperature: Of InfoNCE.
        queue_size: Keys in the queue; no fewer than a global batch.
    """

    def __init__(
        self, model: SimCLRModel, momentum: MomentumNetwork, temperature: float, queue_size: int
    ) -> None:
        super().__init__(model)
        self._momentum, self._temperature = momentum, temperature
        self.queue = keras.Variable(
            unit_rows,
            shape=(queue_size, model.encoder.projection_dim),
            dtype=model.variable_dtype,
            trainable=False,
            autocast=False,
            name="queue",
        )
        chance = math.log(queue_size + 1)
        self.signs = (
            HealthCheck(
                "pretrain_loss",
                "above",
                _NEAR_CHANCE * chance,
                f"the contrastive loss is at chance ({chance:.3f} = ln(K+1)): nothing is learnt; "
                "check the learning rate, the temperature and whether crops still show the object",
            ),
        )

    @property
    def state(self) -> dict[str, keras.Variable]:
        """The queue and the momentum network."""
        return {"queue": self.queue, **self._momentum.state}

    def begin(self) -> None:
        """Sets the momentum network to the network's starting weights."""
        self._momentum.copy()

    @property
    def encoders(self) -> list[SimCLREncoder]:
        """The network and the momentum network."""
        return [self._model.encoder, self._momentum.encoder]

    def features(self, images: tf.Tensor, small: tf.Tensor | None = None) -> ByView:
        """Representations of the first views, from which queries are made."""
        return {0: self._model.encoder(images[0], training=True)}

    def targets(self, images: tf.Tensor) -> ByView:
        """Representations of the second views by the momentum network, from which keys are made."""
        return {1: self._momentum.features(images[1])}

    def losses(self, features: ByView, targets: ByView, labels: tf.Tensor) -> StepOutputs:
        """Losses of queries and keys; see `Pretraining`."""
        outputs = heads(self._model, features[0], "unnormalised")
        queue = tf.convert_to_tensor(self.queue)
        keys = tf.cast(self._momentum.projection(targets[1]), queue.dtype)
        loss, logits = info_nce(outputs.projection, keys, queue, self._temperature)
        metrics = {"pretrain_loss": loss, "contrast_acc": positive_found(logits)}
        unit, _ = gather_rows(tf.math.l2_normalize(keys, 1))
        return with_probe(loss, metrics, [outputs.logits], labels, (unit,))

    def after_update(self, carried: tuple[tf.Tensor, ...]) -> None:
        """Moves the momentum network; the batch's keys go to the end of the queue."""
        (keys,) = carried
        assign_all([self.queue], [enqueue(tf.convert_to_tensor(self.queue), keys)])
        self._momentum.follow()

    def warnings(self, num_examples: int) -> list[str]:
        """Warns of a queue as large as the data: it holds the query's own image as a negative."""
        size = self.queue.shape[0]
        if size < num_examples:
            return []
        return [
            f"the queue ({size}) is no smaller than the data ({num_examples} images): images meet "
            "themselves as negatives; take a smaller --queue_size"
        ]
