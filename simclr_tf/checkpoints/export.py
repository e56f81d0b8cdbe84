"""What a run hands out: `encoder.keras` and a SavedModel called like the public SimCLR ones."""

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from data_prep.storage import replacing_folder, writing
from simclr_tf.checkpoints.description import NETWORK, describe
from simclr_tf.checkpoints.preprocessing import write_record
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.models.variable_names import canonical_variables, tf2_variables


class _Callable(tf.__internal__.tracking.AutoTrackable):
    """The exported object: `loaded(images, trainable=False)` gives the endpoints.

    `variables`, `trainable_variables` and `trainable_variables_list` let other code train it: they
    have the names and the order of the reference's exports, whose optimizers leave variables out
    by parts of their names. `vars` has the same variables by their names in the TF1 graph, so that
    whoever reads the weights alone finds them.
    """

    def __init__(self, model: SimCLRModel) -> None:
        named = {
            name: (v, tf.Variable(v.value, trainable=v.trainable, name=name))
            for name, v in tf2_variables(model).items()
        }
        # Such as the state of random generators, which no name is agreed on for.
        known = {id(v) for v, _ in named.values()}
        others = [(v, tf.Variable(v.value, trainable=False, name=v.path))
                  for v in model.variables if id(v) not in known]  # fmt: skip
        pairs = [*named.values(), *others]
        self._forward = _endpoints(model, pairs)
        self.variables = [copy for _, copy in pairs]
        self.trainable_variables = [copy for v, copy in pairs if v.trainable]
        self.trainable_variables_list = self.trainable_variables
        copies = {id(v): copy for v, copy in pairs}
        self.vars = {name: copies[id(v)] for name, v in canonical_variables(model).items()}
        description = describe(model)
        if description is not None:
            self.vars[NETWORK] = tf.Variable(description, trainable=False)

    @tf.function
    def __call__(self, inputs: tf.Tensor, trainable: bool) -> dict[str, tf.Tensor]:
        """Endpoints of images [n, height, width, channels] in [0, 1]."""
        return self._forward(inputs, trainable)


def _endpoints(
    model: SimCLRModel, pairs: Sequence[tuple[keras.Variable, tf.Variable]]
) -> Callable[[tf.Tensor, bool], dict[str, tf.Tensor]]:
    """The network on the second variable of every pair instead of the first, its own."""

    # A closure keeps the Keras object out of the SavedModel, which holds only the variables.
    def forward(inputs: tf.Tensor, trainable: bool) -> dict[str, tf.Tensor]:
        values = [(v, tf.convert_to_tensor(copy)) for v, copy in pairs]
        # Variables that others wait to initialize are none of this network's.
        with keras.StatelessScope(state_mapping=values, initialize_variables=False) as scope:
            endpoints = model(inputs, training=trainable)
        for (v, copy), (_, before) in zip(pairs, values, strict=True):
            after = scope.get_current_value(v)
            if after is not None and after is not before:
                copy.assign(after)
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
