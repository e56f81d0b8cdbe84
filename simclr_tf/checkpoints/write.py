"""Networks written in every layout that somebody reads."""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.storage import replacing_folder, writing
from simclr_tf.checkpoints.preprocessing import write_record
from simclr_tf.checkpoints.read import NETWORK, describe
from simclr_tf.checkpoints.store import model_keys, nested_checkpoint
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


Format = Literal["keras", "saved_model", "tf1", "tf2", "h5"]
Part = Literal["encoder", "model"]


def format_of(output: str) -> Format:
    """The layout that a name of an output asks for by its ending.

    Raises:
        UserError: The ending asks for none.
    """
    if output.endswith(".keras"):
        return "keras"
    if output.endswith(".weights.h5"):
        return "h5"
    raise UserError(
        f"end it in .keras or .weights.h5, or give --format, one of {', '.join(get_args(Format))}",
        setting="output",
        value=output,
    )


def write_model(
    model: SimCLRModel, output: Path, layout: Format, *, part: Part = "encoder", step: int = 0
) -> None:
    """Writes a model.

    Args:
        model: A float32 model.
        output: A file for `keras` and `h5` (ending `.weights.h5`), a folder otherwise.
        layout: `keras`, ready to be loaded; `saved_model`, called like the public ones; `tf1`,
            `model.ckpt-<step>` with the TF1 graph's names; `tf2`, `ckpt-<step>` with the object
            graph of the reference's `tf2/run.py`; `h5`, Keras weights.
        part: What `keras` and `h5` hold: the encoder, or the model with its supervised head.
        step: Number of the checkpoint.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    keras_model = model.encoder if part == "encoder" else model
    if layout == "keras":
        export_keras(keras_model, output)
    elif layout == "h5":
        _check_room(output, sum(np.asarray(v).nbytes for v in keras_model.variables))
        keras_model.save_weights(output)
        write_record(output.parent, model.encoder.preprocessing)
    elif layout == "saved_model":
        export_saved_model(model, output)
    else:
        output.mkdir(exist_ok=True)
        (_write_tf1 if layout == "tf1" else _write_tf2)(model, output, step)
        write_record(output, model.encoder.preprocessing)


def _check_room(output: Path, size: int) -> None:
    """Refuses what a disk has no room for: HDF5 says so over pages, and again when it is closed."""
    if shutil.disk_usage(output.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(output))


def _write_tf1(model: SimCLRModel, folder: Path, step: int) -> None:
    tensors = {name: np.asarray(v) for name, v in canonical_variables(model).items()}
    description = describe(model)
    if description is not None:
        tensors[NETWORK] = description
    tensors["global_step"] = np.array(step, np.int64)
    prefix = str(folder / f"model.ckpt-{step}")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    # By its name alone, so that the folder may be moved.
    tf.compat.v1.train.update_checkpoint_state(str(folder), f"model.ckpt-{step}")


def _write_tf2(model: SimCLRModel, folder: Path, step: int) -> None:
    step_variable = tf.Variable(step, dtype=tf.int64, trainable=False)
    checkpoint = nested_checkpoint({**model_keys(model), "global_step": step_variable})
    manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=None)
    manager.save(checkpoint_number=step)
