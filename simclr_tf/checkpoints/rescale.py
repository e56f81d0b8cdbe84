"""Kernels of another norm that compute the same: between SimCLRv1's large ones and v2's small ones.

A convolution that BatchNorm follows may be multiplied by any factor: the statistics absorb it. The
norm still decides how fast the kernel turns under a learning rate, and what weight decay does.
"""

from collections.abc import Mapping
from math import prod

import numpy as np

from data_prep.errors import UserError
from simclr_tf.models.heads import DENSE_STDDEV
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.models.variable_names import normalised_kernels


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
    for name, kernel, norm in normalised_kernels(model):
        value = np.asarray(kernel)
        old = float(np.linalg.norm(value))
        factor = norms if isinstance(norms, int | float) else norms[name] / (old or 1.0)
        if not factor > 0:
            raise UserError(f"--rescale: the factor of {name} is {factor:g}; it must be positive")
        kernel.assign(value * factor)
        norm.moving_mean.assign(np.asarray(norm.moving_mean) * factor)
        norm.moving_variance.assign(np.asarray(norm.moving_variance) * factor**2)
        factors[name] = factor
    return factors


def kernel_norms(model: SimCLRModel) -> dict[str, float]:
    """The L2 norm of every kernel that BatchNorm follows, by its name in the TF1 graph."""
    return {n: float(np.linalg.norm(np.asarray(k))) for n, k, _ in normalised_kernels(model)}


def initial_norms(model: SimCLRModel) -> dict[str, float]:
    """The norms that SimCLR's initialisation gives those kernels.

    Convolutions have a variance of 1 / fan-in, dense layers a deviation of 0.01.
    """
    return {name: _initial_norm(tuple(k.shape)) for name, k, _ in normalised_kernels(model)}


def _initial_norm(shape: tuple[int, ...]) -> float:
    deviation = DENSE_STDDEV if len(shape) == 2 else prod(shape[:-1]) ** -0.5
    return deviation * prod(shape) ** 0.5
