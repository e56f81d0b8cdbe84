"""Colour weights for images that have other channels."""

from typing import Literal

import numpy as np

StemAdapt = Literal["sum", "mean", "repeat"]

Shape = tuple[int, ...]


def adaptable(there: Shape | None, here: Shape | None, old: int, new: int) -> bool:
    """Whether weights differ in nothing but the channels of the images.

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
