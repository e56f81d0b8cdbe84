"""The checkpoints of a run: written whole, verified when read, the newest sound one used.

The network is stored under the object-graph keys of the reference's `tf2/run.py`
(`model/resnet_model/...`), so that its code finds the weights where it expects them.
"""

import logging
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.checkpoints.description import NETWORK_KEY, describe
from simclr_tf.checkpoints.reading import SUFFIX, read_tensors
from simclr_tf.models.naming import tf2_checkpoint_keys

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

    With a backbone other than a ResNet one more says what it is.
    """
    by_key = tf2_checkpoint_keys(model)
    keys = {key.removesuffix(SUFFIX): variable.value for key, variable in by_key.items()}
    description = describe(model)
    if description is not None:
        keys[NETWORK_KEY] = tf.Variable(description, trainable=False)
    return keys


class CheckpointStore:
    """Saves and restores the whole state of a run: weights, optimizer, step.

    Args:
        directory: Where `ckpt-N` files go.
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
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._scratch = None if is_chief else tempfile.TemporaryDirectory()
        self._manager = tf.train.CheckpointManager(
            nested_checkpoint({**self._variables, "global_step": self._step}),
            directory=str(directory) if self._scratch is None else self._scratch.name,
            max_to_keep=keep,
        )

    def save(self, step: int) -> str:
        """Writes `ckpt-<step>` and deletes the oldest ones beyond those to keep."""
        self._step.assign(step)
        return self._manager.save(checkpoint_number=step)

    def steps(self) -> list[int]:
        """Steps of the checkpoints on disk, oldest first."""
        found = (re.fullmatch(r"ckpt-(\d+)\.index", p.name) for p in self.directory.glob("ckpt-*"))
        return sorted(int(match.group(1)) for match in found if match)

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
