"""Depth by regression: the loss between a network's map and the true one, for the common step."""

from collections.abc import Callable

import keras
import tensorflow as tf

from simclr_tf.methods.base import StepOutputs

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class DepthRegression:
    """The `Method` of autoencoder and U-Net.

    Args:
        network: Images [b, H, W, 1] in [0, 1] -> normalised depth, likewise.
        loss: Scalar of predicted and true depth.
    """

    def __init__(self, network: keras.Model, loss: Loss) -> None:
        self._network, self._loss = network, loss

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> StepOutputs:
        """The loss of pairs [1, b, H, W, 2]: image, then normalised depth; labels do not count."""
        image, depth = images[0, ..., :1], images[0, ..., 1:]
        loss = self._loss(self._network(image, training=True), depth)
        return StepOutputs(loss, {"depth_loss": loss})
