"""Which checkpoint a path means: a prefix, a file, or one of the folders that people have."""

import os
import re
from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.checkpoints import zoo

_SUFFIXES = (".index", ".meta", ".data-00000-of-00001")


@dataclass(frozen=True)
class Location:
    """Where weights lie.

    Attributes:
        kind: `keras` for a `.keras` file, `tensors` for files that TensorFlow's reader opens.
        path: The `.keras` file, or the prefix of `.index` and `.data-*`.
        saved_model: Folder of a SavedModel with a graph that can be executed; empty if there is
            none.
    """

    kind: Literal["keras", "tensors"]
    path: str
    saved_model: str = ""

    @property
    def folder(self) -> str:
        """The folder that the checkpoint lies in."""
        return os.path.dirname(self.path)


def locate(path: str) -> Location:
    """Finds the checkpoint that a path means.

    Args:
        path: A name of the zoo (`simclr-zoo` lists them), a `.keras` file, a prefix such as
            `run/ckpt-100` or one of its files, or a folder: of a run, of a TF1 release (with or
            without its `hub/` alone), a SavedModel, or one with numbered SavedModels. A folder's
            newest checkpoint is taken.

    Raises:
        UserError: There is no checkpoint.
    """
    path = zoo.resolve(path)
    if path.endswith(".keras"):
        if not tf.io.gfile.exists(path):
            raise UserError(f"--checkpoint={path}: no such file")
        return Location("keras", path)
    if tf.io.gfile.isdir(path):
        return _in_folder(path)
    for suffix in _SUFFIXES:
        path = path.removesuffix(suffix)
    if tf.io.gfile.exists(f"{path}.index"):
        return Location("tensors", path)
    near = sorted(os.path.basename(p).removesuffix(".index") for p in _glob(f"{path}*.index"))
    near = near or sorted(_prefixes(os.path.dirname(path) or "."))
    hint = f"; there are {', '.join(near[:8])}" if near else ""
    raise UserError(f"--checkpoint={path}: no such checkpoint{hint}")


def _in_folder(folder: str) -> Location:
    for found in (_saved_model(folder), _newest(folder), _hub(folder), _numbered(folder)):
        if found:
            return found
    encoder = os.path.join(folder, "encoder.keras")
    if tf.io.gfile.exists(encoder):
        return Location("keras", encoder)
    raise UserError(
        f"--checkpoint={folder}: the folder holds no checkpoint (ckpt-N.index, model.ckpt-N.index, "
        "variables/variables.index or encoder.keras)"
    )


def _saved_model(folder: str) -> Location | None:
    prefix = os.path.join(folder, "variables", "variables")
    if not tf.io.gfile.exists(f"{prefix}.index"):
        return None
    has_graph = tf.io.gfile.exists(os.path.join(folder, "saved_model.pb"))
    return Location("tensors", prefix, folder if has_graph else "")


def _newest(folder: str) -> Location | None:
    # TensorFlow's note of the newest may name a folder of the machine that wrote it.
    noted = tf.train.latest_checkpoint(folder)
    if noted:
        return Location("tensors", noted)
    prefixes = _prefixes(folder)
    return Location("tensors", os.path.join(folder, prefixes[-1])) if prefixes else None


def _prefixes(folder: str) -> list[str]:
    """Names of the checkpoints in a folder, the newest last."""
    names = [os.path.basename(p).removesuffix(".index") for p in _glob(f"{folder}/*.index")]
    return sorted(names, key=lambda name: (_number(name), name))


def _number(name: str) -> int:
    match = re.search(r"(\d+)$", name)
    return int(match.group(1)) if match else -1


def _hub(folder: str) -> Location | None:
    # The graph of a TF1 hub module cannot be called like a SavedModel of TF2.
    prefix = os.path.join(folder, "hub", "variables", "variables")
    return Location("tensors", prefix) if tf.io.gfile.exists(f"{prefix}.index") else None


def _numbered(folder: str) -> Location | None:
    steps = [int(n) for n in (name.strip("/") for name in tf.io.gfile.listdir(folder))
             if n.isdigit()]  # fmt: skip
    return _saved_model(os.path.join(folder, str(max(steps)))) if steps else None


def _glob(pattern: str) -> list[str]:
    return list(tf.io.gfile.glob(pattern))
