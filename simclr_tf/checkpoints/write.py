"""Writing a network in every layout that somebody reads."""

import errno
import os
import shutil
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.checkpoints.description import NETWORK, describe
from simclr_tf.checkpoints.export import export_keras, export_saved_model
from simclr_tf.checkpoints.preprocessing import write_record
from simclr_tf.checkpoints.store import model_keys, nested_checkpoint
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.models.variable_names import canonical_variables

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
        f"--output={output}: end it in .keras or .weights.h5, or give --format, one of "
        f"{', '.join(get_args(Format))}"
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
