"""The classifier's head: from the backbone's features to logits."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="finetune")
class ClassifierHead(keras.layers.Layer):
    """Linear classifier, or one with hidden layers.

    Call: features [B, D] -> logits [B, num_classes], never in half precision. Hidden layers are
    dense with ReLU, each followed by dropout.

    Args:
        num_classes: number of classes.
        hidden: widths of the hidden layers; empty = linear.
        dropout: share of hidden units (of the features, if there are none) dropped in training.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self, num_classes: int, hidden: Sequence[int] = (), dropout: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.hidden = tuple(hidden)
        self.dropout = dropout
        dtype = self.variable_dtype
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
        if not self.hidden_layers:
            x = self._drop(x, training, seed, 0)
        for i, layer in enumerate(self.hidden_layers):
            x = self._drop(layer(x), training, seed, i)
        return self.output_layer(x)

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
        }
