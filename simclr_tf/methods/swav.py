"""SwAV: predict from one crop which prototypes another crop of the image was assigned to.

Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments".
Beside the two views there may be several small crops, which predict and are not assigned.
"""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from simclr_tf.losses.replicas import gather_rows
from simclr_tf.losses.swav import assignments, prototypes_used, swapped_prediction
from simclr_tf.methods.base import (
    BEHIND_POOL,
    ByView,
    HealthCheck,
    Pretraining,
    StepOutputs,
    assign_all,
    both_views,
    with_probe,
)
from simclr_tf.methods.momentum import counter, enqueue
from simclr_tf.models.heads import Prototypes
from simclr_tf.models.simclr import SimCLRModel

_NEAR_CHANCE = 0.998  # many prototypes are told apart slowly
_COLLAPSED_USE = 2.0


class SwAV(Pretraining):
    """Swapped prediction of assignments that are balanced over the batch of all replicas.

    Args:
        model: The network.
        prototypes: What projections are assigned to.
        temperature: Of the predictions.
        epsilon: Softness of the assignments.
        iterations: Of Sinkhorn-Knopp.
        frozen_steps: Steps at the beginning in which the prototypes stay.
        queue_size: Projections of earlier batches that are balanced along; 0 = none.
        queue_start: Steps before they count.
    """

    def __init__(
        self,
        model: SimCLRModel,
        prototypes: Prototypes,
        temperature: float,
        epsilon: float,
        iterations: int,
        frozen_steps: int,
        queue_size: int = 0,
        queue_start: int = 0,
    ) -> None:
        super().__init__(model)
        self._prototypes = prototypes
        self._temperature, self._epsilon, self._iterations = temperature, epsilon, iterations
        self._frozen_steps, self._queue_start = frozen_steps, queue_start
        self.steps = counter()
        self.queue: keras.Variable | None = None
        if queue_size:
            self.queue = keras.Variable(
                "zeros",
                shape=(2, queue_size, model.encoder.projection_dim),
                dtype=model.variable_dtype,
                trainable=False,
                autocast=False,
                name="queue",
            )
        chance = math.log(prototypes.number)
        self.signs = (
            HealthCheck(
                "pretrain_loss",
                "above",
                _NEAR_CHANCE * chance,
                f"the loss is at chance ({chance:.3f} = ln of the prototypes): nothing is learnt; "
                "check the learning rate and --assignment_epsilon",
            ),
            HealthCheck(
                "prototypes_used",
                "below",
                _COLLAPSED_USE,
                "all images are predicted on one prototype: collapse; lower the learning rate or "
                "--assignment_epsilon",
            ),
        )

    @property
    def layers(self) -> Sequence[keras.layers.Layer]:
        """The prototypes."""
        return (self._prototypes,)

    @property
    def undecayed_variables(self) -> list[keras.Variable]:
        """The prototypes: their length is 1, whatever decay would make of it."""
        return self._prototypes.trainable_variables

    @property
    def state(self) -> dict[str, keras.Variable]:
        """The count of steps, and the queue if there is one."""
        return {"steps": self.steps} | ({} if self.queue is None else {"queue": self.queue})

    def features(self, images: tf.Tensor, small: tf.Tensor | None = None) -> ByView:
        """Representations, each view normalised by its own batch, all small crops as one batch.

        Args:
            images: Views [2, b, S, S, C].
            small: Small crops [n, b, s, s, C]; None = none.
        """
        found = super().features(images)
        if small is not None:
            together = tf.reshape(small, [-1, *small.shape[2:]])
            crops = tf.split(self._model.encoder(together, training=True), small.shape[0])
            found.update(enumerate(crops, start=len(found)))
        return found

    def losses(self, features: ByView, targets: ByView, labels: tf.Tensor) -> StepOutputs:
        """Losses of both views and the small crops; see `Pretraining`."""
        views = both_views(self._model, features, "unnormalised")
        projections = [view.projection for view in views]
        projections += self._small_crops([features[i] for i in range(2, len(features))])
        frozen = tf.convert_to_tensor(self.steps) < self._frozen_steps
        scores = [self._prototypes(projection, frozen) for projection in projections]
        assigned = [self._assign(i, scores[i]) for i in range(2)]
        loss = swapped_prediction(assigned, scores, self._temperature)
        predicted = tf.nn.softmax(scores[0] / self._temperature)
        metrics = {"pretrain_loss": loss, "prototypes_used": prototypes_used(predicted)}
        logits = [view.logits for view in views]
        return with_probe(loss, metrics, logits, labels, self._for_the_queue(projections[:2]))

    def _small_crops(self, crops: list[tf.Tensor]) -> list[tf.Tensor]:
        if not crops:
            return []
        _, hiddens = self._model.encoder.hiddens(
            tf.concat(crops, 0), training=True, first_stage=BEHIND_POOL, normalize_output=False
        )
        return tf.split(hiddens[-1], len(crops))

    def _assign(self, view: int, scores: tf.Tensor) -> tf.Tensor:
        if self.queue is None:
            return assignments(scores, self._epsilon, self._iterations)
        queue = tf.convert_to_tensor(self.queue)[view]
        full = tf.reduce_any(queue[0] != 0)  # the oldest place, the last to be filled
        counts = full & (tf.convert_to_tensor(self.steps) >= self._queue_start)
        return assignments(scores, self._epsilon, self._iterations, self._prototypes(queue), counts)

    def _for_the_queue(self, projections: list[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        if self.queue is None:
            return ()
        rows = tf.cast(tf.stack(projections), self.queue.dtype)
        return (tf.stop_gradient(gather_rows(tf.math.l2_normalize(rows, -1))[0]),)

    def after_update(self, carried: tuple[tf.Tensor, ...]) -> None:
        """Brings the prototypes back to unit length and fills the queue."""
        variables = [self._prototypes.kernel, self.steps]
        values = [self._prototypes.unit_kernel(), tf.convert_to_tensor(self.steps) + 1]
        if self.queue is not None:
            variables.append(self.queue)
            values.append(enqueue(tf.convert_to_tensor(self.queue), carried[0]))
        assign_all(variables, values)
