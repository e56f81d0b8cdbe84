"""SimCLR: two views of an image attract, all other images repel (Chen et al. 2020, section 2.1)."""

import tensorflow as tf

from simclr_tf.losses.nt_xent import contrastive_accuracy, contrastive_entropy, nt_xent
from simclr_tf.methods.base import ByView, Pretraining, StepOutputs, heads, with_probe
from simclr_tf.models.simclr import SimCLRModel


class SimCLR(Pretraining):
    """Contrastive pretraining, with a supervised head beside it that moves nothing else.

    Args:
        model: The network.
        temperature: Of NT-Xent.
        hidden_norm: Normalise projections to unit length.
        decoupled: Leave the positive out of the denominator; see `nt_xent`.
    """

    def __init__(
        self, model: SimCLRModel, temperature: float, hidden_norm: bool, decoupled: bool = False
    ) -> None:
        super().__init__(model)
        self._temperature, self._hidden_norm = temperature, hidden_norm
        self._decoupled = decoupled

    def features(self, images: tf.Tensor, small: tf.Tensor | None = None) -> ByView:
        """Representations of both views, normalised as one batch."""
        both = tf.concat([images[0], images[1]], axis=0)
        return dict(enumerate(tf.split(self._model.encoder(both, training=True), 2)))

    def losses(self, features: ByView, targets: ByView, labels: tf.Tensor) -> StepOutputs:
        """Losses of both views; see `Pretraining`."""
        outputs = heads(self._model, tf.concat([features[0], features[1]], axis=0), "all")
        contrast = nt_xent(
            outputs.projection, self._temperature, self._hidden_norm, self._decoupled
        )
        metrics = {
            "contrast_loss": contrast.loss,
            "contrast_acc": contrastive_accuracy(contrast.logits_ab, contrast.labels),
            "contrast_entropy": contrastive_entropy(contrast.logits_ab),
        }
        views = [None, None] if outputs.logits is None else tf.split(outputs.logits, 2)
        return with_probe(contrast.loss, metrics, views, labels)
