"""Smoothing and smooth random fields, the building blocks of several kinds of image."""

import numpy as np


def smooth(
    image: np.ndarray, sigma: float | tuple[float, float], mode: str = "nearest"
) -> np.ndarray:
    """A Gaussian blur.

    Args:
        image: float [H, W].
        sigma: standard deviation in pixels, or two of them, (vertical, horizontal).
        mode: what lies beyond the borders, as in `scipy.ndimage`.

    Returns:
        float64 [H, W].
    """
    # Imported here, so that `--help` need not wait for it.
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, sigma, mode=mode)


def random_field(
    rng: np.random.Generator, shape: tuple[int, int], sigma: float | tuple[float, float]
) -> np.ndarray:
    """Smooth noise: mean 0, standard deviation 1 over the image.

    Args:
        rng: advanced by H * W draws.
        shape: (H, W).
        sigma: size of its blobs in pixels, or two, (vertical, horizontal).

    Returns:
        float64 [H, W].
    """
    noise = smooth(rng.standard_normal(shape), sigma, mode="wrap")
    return (noise - noise.mean()) / max(float(noise.std()), 1e-12)
