"""What a run hands out: `encoder.keras` and a SavedModel called like the public SimCLR ones."""

import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from simclr_tf.models.simclr import SimCLRModel


class _Callable(tf.__internal__.tracking.AutoTrackable):
    """The exported object: `loaded(images, trainable=False)` gives the endpoints.

    `variables`, `trainable_variables` and `trainable_variables_list` let other code train it.
    """

    def __init__(self, model: SimCLRModel) -> None:
        self._forward = _endpoints(model)
        self.variables = [v.value for v in model.variables]
        self.trainable_variables = [v.value for v in model.trainable_variables]
        self.trainable_variables_list = self.trainable_variables

    @tf.function
    def __call__(self, inputs: tf.Tensor, trainable: bool) -> dict[str, tf.Tensor]:
        """Endpoints of images [n, height, width, channels] in [0, 1]."""
        return self._forward(inputs, trainable)


def _endpoints(model: SimCLRModel) -> Callable[[tf.Tensor, bool], dict[str, tf.Tensor]]:
    # A closure keeps the Keras object out of the SavedModel, which holds only its variables.
    def forward(inputs: tf.Tensor, trainable: bool) -> dict[str, tf.Tensor]:
        endpoints = model(inputs, training=trainable)
        return {name: value for name, value in endpoints.items() if name != "proj_hidden"}

    return forward


def float32_copy(model: SimCLRModel) -> SimCLRModel:
    """A copy of a network, outside any strategy, that computes in float32 and trains as a whole."""
    config = {"dtype": "float32", "trainable": True, "trainability": {}}
    copy = SimCLRModel.from_config({**model.get_config(), **config})
    copy.build((None, None, None, model.image_channels))
    for target, source in zip(copy.variables, model.variables, strict=True):
        target.assign(source.value.numpy())
    return copy


def export_saved_model(model: SimCLRModel, directory: Path) -> None:
    """Writes a SavedModel with the call signature of the reference's exports.

    Args:
        model: A float32 network.
        directory: `saved_model/<step>`; replaced if there.
    """
    exported = _Callable(model)
    images = tf.TensorSpec([None, None, None, model.image_channels], tf.float32, name="inputs")
    for trainable in (True, False):
        exported.__call__.get_concrete_function(images, trainable=trainable)
    temporary = directory.with_name(f".{directory.name}")
    for path in (temporary, directory):
        shutil.rmtree(path, ignore_errors=True)
    tf.saved_model.save(exported, str(temporary))
    temporary.rename(directory)


def export_encoder(model: SimCLRModel, path: Path) -> None:
    """Writes the encoder, with its preprocessing record, as a Keras file."""
    temporary = path.with_name(f".{path.name}")
    model.encoder.save(temporary.with_suffix(".tmp.keras"))
    temporary.with_suffix(".tmp.keras").replace(path)


def load_encoder_file(path: Path) -> keras.Model:
    """Reads an `encoder.keras`."""
    return keras.models.load_model(path)
