"""Colour weights for images that have other channels."""

from typing import Literal

import numpy as np

StemAdapt = Literal["sum", "mean", "repeat"]


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
