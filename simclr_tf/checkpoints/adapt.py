"""Checkpoints adapted to other channels and norms, and converted networks verified.

A convolution that BatchNorm follows may be multiplied by any factor: the statistics absorb it. The
norm still decides how fast the kernel turns under a learning rate, and what weight decay does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.checkpoints.plain_names import PlainName
from simclr_tf.models.heads import DENSE_STDDEV
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.models.variable_names import normalized_kernels

StemAdapt = Literal["sum", "mean", "repeat"]

Shape = tuple[int, ...]


def adaptable(there: Shape | None, here: Shape | None, old: int, new: int) -> bool:
    """True if two shapes of a weight differ in nothing but the channels of the images.

    Args:
        there: Shape in the checkpoint; None = missing.
        here: Shape in the network.
        old: Channels of the images there.
        new: Channels here.
    """
    if there is None or here is None or len(there) != len(here):
        return False
    axis = 2 if len(there) == 4 else 0
    return (there[axis], here[axis]) == (old, new) and (
        (*there[:axis], *there[axis + 1 :]) == (*here[:axis], *here[axis + 1 :])
    )


def adapt_channels(value: np.ndarray, shape: Shape, how: StemAdapt = "sum") -> np.ndarray:
    """Brings weights of a stem to the channels of other images, if they are not of this shape yet.

    Args:
        value: A first convolution's kernel [k, k, C, F]; or a number a channel [C], such as a mean,
            of which every new channel gets the average.
        shape: The shape wanted.
        how: See `adapt_stem`.
    """
    if value.shape == shape:
        return value
    if value.ndim == 1:
        return np.full(shape, value.mean(), value.dtype)
    return adapt_stem(value, shape[2], how)


def adapt_stem(kernel: np.ndarray, channels: int, how: StemAdapt = "sum") -> np.ndarray:
    """Turns the first convolution's kernel into one for another number of channels.

    Args:
        kernel: [k, k, C, F].
        channels: Channels n of the images to come.
        how: `sum` gives every new channel the sum over the old ones divided by n, so that an image
            whose n channels are equal is seen as the old network sees it with that grey in all of
            its channels; for one channel this is exact. `mean` gives every new channel the mean
            over the old ones. `repeat` deals the old channels out in turn (R, G, B, R, ...) and
            scales by C / n, so that the response to equal channels stays about the same.

    Returns:
        [k, k, n, F], of the kernel's dtype.
    """
    old = kernel.shape[2]
    if how == "repeat":
        taken = kernel[:, :, np.arange(channels) % old]
        return (taken * (old / channels)).astype(kernel.dtype)
    total = kernel.sum(axis=2, keepdims=True, dtype=np.float64)
    one = total / (channels if how == "sum" else old)
    return np.repeat(one, channels, axis=2).astype(kernel.dtype)


def rescale(model: SimCLRModel, norms: Mapping[str, float] | float) -> dict[str, float]:
    """Multiplies kernels, and the statistics of the BatchNorm behind each, by a factor.

    In inference the network computes what it did before, up to BatchNorm's epsilon, which
    weighs more the smaller the kernels become.

    Args:
        model: A built model; changed in place.
        norms: The L2 norm wanted for each kernel by its name in the TF1 graph; or one factor for
            all kernels.

    Returns:
        The factor of each kernel.

    Raises:
        UserError: A norm or factor is not positive.
    """
    factors: dict[str, float] = {}
    for name, kernel, norm in normalized_kernels(model):
        value = np.asarray(kernel)
        old = float(np.linalg.norm(value))
        factor = norms if isinstance(norms, int | float) else norms[name] / (old or 1.0)
        if not factor > 0:
            raise UserError(
                f"the factor of {name} is {factor:g}; it must be positive", setting="rescale"
            )
        kernel.assign(value * factor)
        norm.moving_mean.assign(np.asarray(norm.moving_mean) * factor)
        norm.moving_variance.assign(np.asarray(norm.moving_variance) * factor**2)
        factors[name] = factor
    return factors


def kernel_norms(model: SimCLRModel) -> dict[str, float]:
    """The L2 norm of every kernel that BatchNorm follows, by its name in the TF1 graph."""
    return {n: float(np.linalg.norm(np.asarray(k))) for n, k, _ in normalized_kernels(model)}


def initial_norms(model: SimCLRModel) -> dict[str, float]:
    """The norms that SimCLR's initialisation gives those kernels.

    Convolutions have a variance of 1 / fan-in, dense layers a deviation of 0.01.
    """
    return {name: _initial_norm(tuple(k.shape)) for name, k, _ in normalized_kernels(model)}


def _initial_norm(shape: tuple[int, ...]) -> float:
    deviation = DENSE_STDDEV if len(shape) == 2 else prod(shape[:-1]) ** -0.5
    return deviation * prod(shape) ** 0.5


TOLERANCE = 1e-4  # of the largest value
_BATCH = 2


@dataclass(frozen=True)
class InferenceCheck:
    """Result of one pass over two random images.

    Attributes:
        spread: Mean and standard deviation of every endpoint.
        compared: Largest difference from the original at each endpoint, over the original's
            largest value; empty if the original cannot be executed.
    """

    spread: dict[str, tuple[float, float]]
    compared: dict[str, float]

    def table(self) -> str:
        """The result as text, one line for each endpoint."""
        lines = [f"  {'endpoint':18s}{'mean':>12s}{'spread':>12s}  difference from the original"]
        for name, (mean, deviation) in self.spread.items():
            difference = f"{self.compared[name]:.1e}" if name in self.compared else "not executed"
            lines.append(f"  {name:18s}{mean:12.4g}{deviation:12.4g}  {difference}")
        return "\n".join(lines)


def check_inference(model: SimCLRModel, saved_model: str = "") -> InferenceCheck:
    """Runs a converted network, and the SavedModel it comes from if there is one.

    Args:
        model: The network.
        saved_model: Folder of the original with a graph that can be executed; empty for none.

    Raises:
        UserError: An endpoint is not finite, or differs from the original's.
    """
    size = model.encoder.preprocessing.get("image_size", 32)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.random((_BATCH, size, size, model.image_channels), np.float32))
    ours = {n: v.numpy() for n, v in model(images, training=False).items() if n != "proj_hidden"}
    spread = {n: (float(v.mean()), float(v.std())) for n, v in ours.items()}
    broken = [name for name, value in ours.items() if not np.isfinite(value).all()]
    if broken:
        raise UserError(f"the converted network gives no finite numbers at {', '.join(broken)}")
    theirs = _execute(saved_model, images) if saved_model else {}
    compared = {
        name: _difference(ours[name], value) for name, value in theirs.items() if name in ours
    }
    worst = max(compared, key=lambda name: compared[name], default="")
    if worst and not compared[worst] <= TOLERANCE:
        raise UserError(
            f"the converted network differs from {saved_model} at {worst} by {compared[worst]:.2g} "
            f"of the largest value; {TOLERANCE:g} is allowed"
        )
    return InferenceCheck(spread, compared)


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference over the largest value; infinite between different shapes."""
    if ours.shape != theirs.shape:
        return np.inf
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12))


def _execute(folder: str, images: tf.Tensor) -> dict[str, np.ndarray]:
    """Endpoints of a SavedModel; none if it is not called like the public TF2 ones."""
    name = PlainName(folder)
    loaded = tf.saved_model.load(name.path)
    if not callable(loaded):
        return {}
    try:
        return {name: value.numpy() for name, value in loaded(images, trainable=False).items()}
    except (ValueError, TypeError, AttributeError):
        return {}
