"""Paths resolved to checkpoints: a prefix, a file, or the folder of a run or a release."""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_prep.errors import UserError
from simclr_tf.checkpoints import zoo

log = logging.getLogger(__name__)

NOTE = "checkpoint"  # TensorFlow's name of the file that says which checkpoint is the newest
_SUFFIXES = (".index", ".meta", ".data-00000-of-00001")


@dataclass(frozen=True)
class Location:
    """Place of a checkpoint on disk.

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
        if not os.path.exists(path):
            raise UserError("no such file", setting="checkpoint", value=path)
        return Location("keras", path)
    if os.path.isdir(path):
        return _in_folder(path)
    for suffix in _SUFFIXES:
        path = path.removesuffix(suffix)
    if os.path.exists(f"{path}.index"):
        return Location("tensors", path)
    beside = sorted(_prefixes(os.path.dirname(path) or "."))
    near = [name for name in beside if name.startswith(os.path.basename(path))] or beside
    hint = f"; there are {', '.join(near[:8])}" if near else ""
    raise UserError(f"no such checkpoint{hint}", setting="checkpoint", value=path)


def _in_folder(folder: str) -> Location:
    for found in (_saved_model(folder), _newest(folder), _hub(folder), _numbered(folder)):
        if found:
            return found
    encoder = os.path.join(folder, "encoder.keras")
    if os.path.exists(encoder):
        return Location("keras", encoder)
    raise UserError(
        "the folder holds no checkpoint (ckpt-N.index, model.ckpt-N.index, "
        "variables/variables.index or encoder.keras)",
        setting="checkpoint",
        value=folder,
    )


def _saved_model(folder: str) -> Location | None:
    prefix = os.path.join(folder, "variables", "variables")
    if not os.path.exists(f"{prefix}.index"):
        return None
    has_graph = os.path.exists(os.path.join(folder, "saved_model.pb"))
    return Location("tensors", prefix, folder if has_graph else "")


def _newest(folder: str) -> Location | None:
    """The checkpoint that TensorFlow's note names, or that with the highest number.

    The note may name a folder of the machine that wrote it, or be damaged. In the folder of a run
    the highest number counts, for there a note of another one is damaged or old.
    """
    prefixes = _prefixes(folder)
    noted = os.path.basename(_noted(folder))
    if noted in prefixes and (noted == prefixes[-1] or not _is_run(folder)):
        return Location("tensors", os.path.join(folder, noted))
    if noted and prefixes:
        log.warning("%s: the note of the newest checkpoint names %s; %s is taken",
                    os.path.join(folder, NOTE), noted, prefixes[-1])  # fmt: skip
    return Location("tensors", os.path.join(folder, prefixes[-1])) if prefixes else None


def _noted(folder: str) -> str:
    """Reads the path of the newest checkpoint from TensorFlow's note; empty without one."""
    file = Path(folder) / NOTE
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    match = re.search(r'^model_checkpoint_path: "(.*)"$', text, re.MULTILINE)
    return match.group(1).replace("\\\\", "/") if match else ""


def _is_run(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "config.json"))


def _prefixes(folder: str) -> list[str]:
    """Names of the checkpoints in a folder, the newest last."""
    listed = os.listdir(folder) if os.path.isdir(folder) else []
    names = [name.removesuffix(".index") for name in listed if name.endswith(".index")]
    return sorted(names, key=lambda name: (_number(name), name))


def _number(name: str) -> int:
    match = re.search(r"(\d+)$", name)
    return int(match.group(1)) if match else -1


def _hub(folder: str) -> Location | None:
    # The graph of a TF1 hub module cannot be called like a SavedModel of TF2.
    prefix = os.path.join(folder, "hub", "variables", "variables")
    return Location("tensors", prefix) if os.path.exists(f"{prefix}.index") else None


def _numbered(folder: str) -> Location | None:
    steps = [int(n) for n in (name.strip("/") for name in os.listdir(folder))
             if n.isdigit()]  # fmt: skip
    return _saved_model(os.path.join(folder, str(max(steps)))) if steps else None
