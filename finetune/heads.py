"""The classifier's head: from the backbone's features to logits."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simclr_tf.evaluation.linear_probe import LinearProbe

_UNSEEN = 3.0  # below the least bias of the seen classes, in nats


@keras.saving.register_keras_serializable(package="finetune")
class FeatureScaling(keras.layers.Normalization):
    """Standardization of features by their mean and deviation over the training images.

    Keras' layer, but for two things. It reads its weights at every call, so that a restored or
    copied network needs no further step; and features that do not vary over the training images are
    only centered, where Keras would divide by nearly nothing.

    Call: features [B, D] -> the same, standardized. Before `set_statistics` it changes nothing.
    """

    def set_statistics(self, features: np.ndarray) -> None:
        """Takes mean and variance of features float [n, D]; the layer must be built."""
        mean = features.mean(axis=0, dtype=np.float64)
        deviation = features.std(axis=0, dtype=np.float64)
        varies = deviation > 1e-8 * (1 + np.abs(mean))
        self.adapt_mean.assign(mean.astype(np.float32))
        self.adapt_variance.assign(np.where(varies, deviation**2, 1.0).astype(np.float32))
        self.count.assign(len(features))
        self.finalize_state()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The standardized features."""
        return (inputs - self.adapt_mean) / tf.sqrt(tf.convert_to_tensor(self.adapt_variance))


@keras.saving.register_keras_serializable(package="finetune")
class ClassifierHead(keras.layers.Layer):
    """Linear classifier, or one with hidden layers.

    Call: features [B, D] -> logits [B, num_classes], never in half precision. Hidden layers are
    dense with ReLU, each followed by dropout.

    Args:
        num_classes: number of classes.
        hidden: widths of the hidden layers; empty = linear.
        dropout: share of hidden units (of the features, if there are none) dropped in training.
        feature_scaling: begin with `FeatureScaling`.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        num_classes: int,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        feature_scaling: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.hidden = tuple(hidden)
        self.dropout = dropout
        dtype = self.variable_dtype
        self.scaling = FeatureScaling(name="scaling", dtype=dtype) if feature_scaling else None
        self.hidden_layers = [
            keras.layers.Dense(units, "relu", name=f"hidden_{i}", dtype=dtype)
            for i, units in enumerate(self.hidden)
        ]
        self.output_layer = keras.layers.Dense(num_classes, name="logits", dtype=dtype)

    @property
    def layers(self) -> list[keras.layers.Dense]:
        """All dense layers, from the input on."""
        return [*self.hidden_layers, self.output_layer]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all weights."""
        shape = tuple(input_shape)
        if self.scaling is not None:
            self.scaling.build(shape)
        for layer in self.layers:
            layer.build(shape)
            shape = (*shape[:-1], layer.units)
        self.built = True

    def call(
        self, inputs: tf.Tensor, training: bool = False, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """The logits.

        Args:
            inputs: [B, D].
            training: drop units.
            seed: int [2] that decides which; None = drawn from TensorFlow's own generator.
        """
        x = tf.cast(inputs, self.variable_dtype)
        if self.scaling is not None:
            x = self.scaling(x)
        if not self.hidden_layers:
            x = self._drop(x, training, seed, 0)
        for i, layer in enumerate(self.hidden_layers):
            x = self._drop(layer(x), training, seed, i)
        return self.output_layer(x)

    def start_from(self, probe: LinearProbe) -> None:
        """Sets the weights of a linear head so that it says what a linear probe says.

        Args:
            probe: Of the features as they come, before any scaling.
        """
        kernel = probe.weights / probe.scale[:, np.newaxis]
        bias = probe.bias - probe.mean @ kernel
        seen = np.isfinite(bias)
        # A class without training images is unlikely, not impossible.
        bias = np.where(seen, bias, bias[seen].min() - _UNSEEN)
        if self.scaling is not None:
            bias = bias + self.scaling.adapt_mean.numpy().astype(np.float64) @ kernel
            deviation = np.sqrt(self.scaling.adapt_variance.numpy().astype(np.float64))
            kernel = kernel * deviation[:, np.newaxis]
        self.output_layer.kernel.assign(kernel.astype(np.float32))
        self.output_layer.bias.assign(bias.astype(np.float32))

    def _drop(self, x: tf.Tensor, training: bool, seed: tf.Tensor | None, number: int) -> tf.Tensor:
        if not training or not self.dropout:
            return x
        if seed is None:
            return tf.nn.dropout(x, self.dropout)
        own = seed + tf.constant([0, number], seed.dtype)
        return tf.nn.experimental.stateless_dropout(x, self.dropout, own)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """[B, num_classes]."""
        return (*input_shape[:-1], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "hidden": list(self.hidden),
            "dropout": self.dropout,
            "feature_scaling": self.scaling is not None,
        }
