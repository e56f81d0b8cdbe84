"""What a run hands out: `encoder.keras` and a SavedModel called like the public SimCLR ones."""

from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from data_prep.files import replacing_folder, writing
from simclr_tf.checkpoints.description import NETWORK, describe
from simclr_tf.checkpoints.preprocessing import write_record
from simclr_tf.models.naming import canonical_variables
from simclr_tf.models.simclr import SimCLRModel


class _Callable(tf.__internal__.tracking.AutoTrackable):
    """The exported object: `loaded(images, trainable=False)` gives the endpoints.

    `variables`, `trainable_variables` and `trainable_variables_list` let other code train it;
    `vars` names the same variables as the TF1 graph does, so that whoever reads the weights alone
    finds them.
    """

    def __init__(self, model: SimCLRModel) -> None:
        self._forward = _endpoints(model)
        self.variables = [v.value for v in model.variables]
        self.trainable_variables = [v.value for v in model.trainable_variables]
        self.trainable_variables_list = self.trainable_variables
        self.vars = {name: v.value for name, v in canonical_variables(model).items()}
        description = describe(model)
        if description is not None:
            self.vars[NETWORK] = tf.Variable(description, trainable=False)

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
    with replacing_folder(directory) as draft:
        tf.saved_model.save(exported, str(draft))
        extra = draft / "assets.extra"
        extra.mkdir()
        write_record(extra, model.encoder.preprocessing)


def export_keras(model: keras.Model, path: Path) -> None:
    """Writes a model, with the preprocessing record of its encoder, as a Keras file.

    Raises:
        UserError: It cannot be written; what was there before is as it was.
    """
    temporary = path.with_name(f".{path.stem}.tmp.keras")
    try:
        with writing(path):
            model.save(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
