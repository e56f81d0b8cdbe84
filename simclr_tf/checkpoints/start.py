"""Starting a network from the weights of another run."""

import logging
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.checkpoints.store import model_keys, read_tensors

log = logging.getLogger(__name__)

_HEADS = ("model/supervised_head/", "model/_projection_head/")


@dataclass(frozen=True)
class Coverage:
    """What became of a network's variables: keys that were loaded, and those left as they were."""

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]


def checkpoint_prefix(path: str) -> str:
    """Finds the checkpoint that a path means.

    Args:
        path: A prefix such as `run/ckpt-100`, one of its files, or a folder, whose latest is taken.

    Returns:
        The prefix.

    Raises:
        UserError: There is no checkpoint.
    """
    for suffix in (".index", ".data-00000-of-00001"):
        path = path.removesuffix(suffix)
    if tf.io.gfile.isdir(path):
        latest = tf.train.latest_checkpoint(path)
        if latest is None:
            raise UserError(f"--checkpoint={path}: the folder holds no checkpoint (ckpt-N)")
        return latest
    if not tf.io.gfile.exists(f"{path}.index"):
        near = sorted(p.stem for p in Path(path).parent.glob("*.index"))
        hint = f"; there are {', '.join(near)}" if near else ""
        raise UserError(f"--checkpoint={path}: no such checkpoint{hint}")
    return path


def load_weights(model: keras.Model, path: str) -> Coverage:
    """Loads a checkpoint's weights into a network.

    The backbone must fit completely. A head whose shape differs (other classes, another projection)
    keeps its fresh weights, and that is said.

    Args:
        model: A built `SimCLRModel`.
        path: What `checkpoint_prefix` accepts.

    Returns:
        Which variables were loaded.

    Raises:
        UserError: The checkpoint is missing, damaged, or of another backbone; nothing is set then.
    """
    prefix = checkpoint_prefix(path)
    tensors = read_tensors(prefix)
    wanted = model_keys(model)
    fits = {k for k, v in wanted.items() if k in tensors and tensors[k].shape == tuple(v.shape)}
    for key, variable in wanted.items():
        if key not in fits and not key.startswith(_HEADS):
            raise UserError(_misfit(prefix, key, tuple(variable.shape), tensors))
    fresh_heads = {head for head in _HEADS for k in wanted if k.startswith(head) and k not in fits}
    for key in fits:
        if not key.startswith(tuple(fresh_heads)):
            wanted[key].assign(tensors[key])
    fresh = tuple(k for k in wanted if k.startswith(tuple(fresh_heads)))
    for head in sorted(fresh_heads):
        name = head.split("/")[1].strip("_").replace("_", " ")
        log.info("%s: the %s does not fit and starts fresh", prefix, name)
    return Coverage(tuple(k for k in wanted if k not in fresh), fresh)


def _misfit(prefix: str, key: str, shape: tuple[int, ...], tensors: dict[str, np.ndarray]) -> str:
    if key not in tensors:
        return (
            f"--checkpoint={prefix}: holds no {key}; is it of another --resnet_depth, --sk_ratio, "
            "--se_ratio or --stem?"
        )
    return (
        f"--checkpoint={prefix}: {key} is {tensors[key].shape} there and {shape} here; check "
        "--width_multiplier, --resnet_depth, --sk_ratio, --image_channels"
    )
