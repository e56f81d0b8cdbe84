"""A watch for fine-tuning that destroys what the network knew before it learns anything."""

import logging
import math
from typing import Any

import keras
import numpy as np

log = logging.getLogger(__name__)

_FAR_ABOVE = 1.25  # times the loss of guessing
_EARLY = 0.25  # of all steps: later a high loss is overfitting


def guessing_loss(labels: np.ndarray) -> float:
    """Log loss in nats of saying the shares of the classes of every image.

    Args:
        labels: Class numbers int [n]; -1 = not known.
    """
    counts = np.bincount(labels[labels >= 0])
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


class SpoiltFeatures(keras.callbacks.Callback):
    """Warns when the validation loss is far above that of guessing early in training.

    Args:
        labels: Class numbers of the validation images, int [n].
        total_steps: Updates planned.
        frozen: Whether the head alone trains.
    """

    def __init__(self, labels: np.ndarray, total_steps: int, frozen: bool) -> None:
        super().__init__()
        self._chance = guessing_loss(labels)
        self._until = math.ceil(_EARLY * total_steps)
        self._frozen = frozen
        self._said = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the validation of the epoch that ends."""
        logs = logs or {}
        loss = logs.get("validation/loss", 0.0)
        early = epoch == 0 or logs.get("step", 0) <= self._until
        if self._said or not early or not self._chance or loss <= _FAR_ABOVE * self._chance:
            return
        self._said = True
        why = "the head's steps are too large; take a lower --learning_rate or --head_start=probe"
        if not self._frozen:
            why = (
                "training destroys what the network knew before it learns anything; a lower "
                "--learning_rate, --warmup_epochs, --head_start=probe, --layer_decay=0.75 or "
                "--head_only protect it"
            )
        log.warning(
            "validation loss %.2f after epoch %d, where guessing by the classes' shares gives "
            "%.2f: %s", loss, epoch + 1, self._chance, why,
        )  # fmt: skip
