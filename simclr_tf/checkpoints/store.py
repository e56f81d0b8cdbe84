"""The checkpoints of a run: written whole, verified when read, the newest sound one used.

The network is stored under the object-graph keys of the reference's `tf2/run.py`
(`model/resnet_model/...`), so that its code finds the weights where it expects them.
"""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.storage import put_in_place, write_text, writing
from simclr_tf.checkpoints.find import NOTE
from simclr_tf.checkpoints.read import NETWORK_KEY, SUFFIX, describe, read_tensors
from simclr_tf.models.variable_names import tf2_checkpoint_keys

log = logging.getLogger(__name__)


def nested_checkpoint(variables: dict[str, tf.Variable]) -> tf.train.Checkpoint:
    """Nests variables so that a checkpoint stores each under its slash-separated key."""
    children: dict[str, Any] = {}
    groups: dict[str, dict[str, tf.Variable]] = {}
    for key, variable in variables.items():
        head, _, rest = key.partition("/")
        if rest:
            groups.setdefault(head, {})[rest] = variable
        else:
            children[head] = variable
    children.update({name: nested_checkpoint(group) for name, group in groups.items()})
    return tf.train.Checkpoint(**children)


def model_keys(model: keras.Model) -> dict[str, tf.Variable]:
    """The variables of a SimCLR model by their checkpoint keys, without TensorFlow's suffix.

    A backbone other than a ResNet adds a variable with its description.
    """
    by_key = tf2_checkpoint_keys(model)
    keys = {key.removesuffix(SUFFIX): variable.value for key, variable in by_key.items()}
    description = describe(model)
    if description is not None:
        keys[NETWORK_KEY] = tf.Variable(description, trainable=False)
    return keys


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints `ckpt-<step>` in a folder, oldest first."""
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else iter(())
    found = (re.fullmatch(r"ckpt-(\d+)\.index", name) for name in names)
    return sorted(int(match.group(1)) for match in found if match)


def checkpoint_files(folder: Path, step: int) -> list[Path]:
    """The files of `ckpt-<step>` in a folder, the index first."""
    return sorted(
        (path for path in folder.iterdir() if path.name.startswith(f"ckpt-{step}.")),
        key=lambda path: path.suffix != ".index",
    )


class CheckpointStore:
    """Saves and restores the whole state of a run: weights, optimizer, step.

    Args:
        directory: The folder of the `ckpt-N` files.
        model: The network, built.
        optimizer: The optimizer, built.
        keep: How many checkpoints to keep.
        is_chief: Whether this worker's files count; others write to a folder that is thrown away,
            because reading variables that are spread over workers takes all of them.
        keys: All variables of the model by their keys; None = those of a SimCLR model.
    """

    def __init__(
        self,
        directory: Path,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        keep: int = 5,
        is_chief: bool = True,
        keys: Mapping[str, tf.Variable] | None = None,
    ) -> None:
        self.directory = directory
        self._variables = {
            **(model_keys(model) if keys is None else keys),
            **{f"optimizer/_variables/{i}": v.value for i, v in enumerate(optimizer.variables)},
        }
        self._keep, self._is_chief = keep, is_chief
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._state = nested_checkpoint({**self._variables, "global_step": self._step})

    def save(self, step: int) -> None:
        """Writes `ckpt-<step>` and deletes the oldest ones beyond those to keep; see `write`."""
        self.write(step)
        self.prune()

    def write(self, step: int) -> None:
        """Writes `ckpt-<step>`: it is there whole or not at all.

        Checkpoints of later steps, which can only be damaged ones, are deleted.

        Args:
            step: Its number.

        Raises:
            UserError: It cannot be written; what was there before is as it was.
        """
        self._step.assign(step)
        self._state.save_counter.assign_add(1)  # which TensorFlow's own readers expect
        if not self._is_chief:
            with tempfile.TemporaryDirectory() as scratch:
                self._state.write(os.path.join(scratch, f"ckpt-{step}"))
            return
        with writing(self.directory / f"ckpt-{step}"), self._partial() as place:
            self._state.write(str(place / f"ckpt-{step}"))
            # The index last: where it is, the checkpoint is whole.
            for file in sorted(place.iterdir(), key=lambda file: file.suffix == ".index"):
                put_in_place(file, self.directory / file.name)
        self._write_note([known for known in self.steps() if known <= step])
        for later in [known for known in self.steps() if known > step]:
            self._delete(later)

    def prune(self) -> None:
        """Deletes the oldest checkpoints beyond those to keep, and the rest of half deleted."""
        steps = self.steps()
        if not self._is_chief:
            return
        if len(steps) > self._keep:
            self._write_note(steps[-self._keep :])
            for old in steps[: -self._keep]:
                self._delete(old)
        for file in self.directory.glob("ckpt-*.data-*-of-*"):
            if not file.with_suffix(".index").exists():
                file.unlink()

    @contextmanager
    def _partial(self) -> Iterator[Path]:
        """A hidden folder to write a checkpoint in; what a kill has left in it is removed."""
        place = self.directory / ".partial"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def mend_note(self) -> None:
        """Writes TensorFlow's note of the checkpoints anew if it is gone or damaged."""
        if self._is_chief and (steps := self.steps()):
            self._write_note(steps)

    def _write_note(self, steps: list[int]) -> None:
        """TensorFlow's note of the checkpoints in the folder, by name, so that it may be moved."""
        lines = [f'model_checkpoint_path: "ckpt-{steps[-1]}"']
        lines += [f'all_model_checkpoint_paths: "ckpt-{step}"' for step in steps]
        note, text = self.directory / NOTE, "\n".join(lines) + "\n"
        if not note.is_file() or note.read_bytes() != text.encode():
            write_text(note, text)

    def _delete(self, step: int) -> None:
        """Deletes `ckpt-<step>`, its index first."""
        for file in checkpoint_files(self.directory, step):
            file.unlink()

    def discard(self, step: int) -> None:
        """Deletes `ckpt-<step>`, which turned out to be of no use; the one before is the newest."""
        if not self._is_chief:
            return
        if steps := [known for known in self.steps() if known != step]:
            self._write_note(steps)
        else:
            (self.directory / NOTE).unlink(missing_ok=True)
        self._delete(step)

    def steps(self) -> list[int]:
        """Steps of the checkpoints on disk, oldest first."""
        return checkpoint_steps(self.directory)

    def not_finite(self) -> str:
        """Key of a variable that holds a NaN or an infinite number; empty if all are sound."""
        for key, variable in self._variables.items():
            if variable.dtype.is_floating and not bool(
                tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(variable)))
            ):
                return key
        return ""

    def restore_latest(self) -> int | None:
        """Restores the newest checkpoint that is sound.

        Returns:
            Its step, or None if the folder holds no checkpoint.

        Raises:
            UserError: There are checkpoints, and all of them are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                self.restore(step)
            except UserError as error:
                log.warning("%s; trying the one before", error)
            else:
                return step
        if steps:
            raise UserError(
                f"every checkpoint in {self.directory} is damaged; start anew elsewhere"
            )
        return None

    def restores(self, step: int, directory: Path) -> bool:
        """Like `restore`, but logs a damaged checkpoint and returns False."""
        try:
            self.restore(step, directory)
        except UserError as error:
            log.warning("%s", error)
            return False
        return True

    def restore(self, step: int, directory: Path | None = None) -> None:
        """Sets weights, optimizer and step from `ckpt-<step>`.

        Args:
            step: Its number.
            directory: Where it lies, if not in the store's own.

        Raises:
            UserError: It is missing, damaged, or of another network; nothing has been set then.
        """
        prefix = str((directory or self.directory) / f"ckpt-{step}")
        tensors = read_tensors(prefix)
        wrong = [
            key
            for key, variable in self._variables.items()
            if key not in tensors or tensors[key].shape != tuple(variable.shape)
        ]
        if wrong:
            raise UserError(f"checkpoint {prefix} does not fit this network: {wrong[0]} differs")
        for key, variable in self._variables.items():
            variable.assign(tensors[key])
        self._step.assign(step)
