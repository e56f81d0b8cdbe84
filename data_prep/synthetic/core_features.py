"""What can be seen in a drill core: bedding, fractures, breccia, and the grains of the rock.

Every function takes the pixel grid (y, x) in units of the image's width, so that an image of any
size shows the same rock, and gives a map that `core` mixes into colours.
"""

import math

import numpy as np

from data_prep.synthetic.noise import random_field, smooth


def layers(
    y: np.ndarray,
    x: np.ndarray,
    *,
    dip: float,
    thickness: float,
    waviness: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Beds of lognormal thickness (Talling 2001, Sedimentology 48, 1297), tilted and wavy.

    Args:
        y: float [H, W], down the core.
        x: float [H, W], across it.
        dip: of the beds, in radians.
        thickness: median thickness of a bed.
        waviness: sigma of the displacement of their boundaries.
        rng: draws them.

    Returns:
        float64 [H, W]: a tone for every bed, standard normal.
    """
    warp = waviness * random_field(rng, (y.shape[0], y.shape[1]), y.shape[1] / 8)
    place = y * math.cos(dip) + x * math.sin(dip) + warp
    low, high = float(place.min()), float(place.max())
    count = math.ceil(8 * (high - low) / thickness) + 8
    tops = low + np.cumsum(thickness * rng.lognormal(0, 0.6, count)) - thickness
    tones = rng.standard_normal(count + 1)
    return tones[np.searchsorted(tops, place)]


def self_affine_line(rng: np.random.Generator, points: int, hurst: float = 0.8) -> np.ndarray:
    """A rough profile, as fractures have: its spectrum falls as frequency^-(1 + 2 hurst).

    Hurst exponents near 0.8 were found for most rocks (Bouchaud, Lapasset & Planes 1990, Europhys.
    Lett. 13, 73).

    Args:
        rng: draws it.
        points: length.
        hurst: exponent, in (0, 1).

    Returns:
        float64 [points]: mean 0, standard deviation 1.
    """
    frequency = np.arange(1, points // 2 + 1)
    amplitude = frequency ** -(0.5 + hurst)
    waves = amplitude * np.exp(2j * np.pi * rng.uniform(size=len(frequency)))
    # Twice the length is made and one half used: a fracture need not end where it began.
    line = np.fft.irfft(np.concatenate([[0], waves]), 4 * points)[:points]
    return (line - line.mean()) / max(float(line.std()), 1e-12)


def fracture(
    y: np.ndarray,
    x: np.ndarray,
    *,
    angle: float,
    offset: tuple[float, float],
    roughness: float,
    aperture: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """One open or filled fracture across the image.

    Args:
        y: float [H, W].
        x: float [H, W].
        angle: to the x axis, in radians.
        offset: a point (y, x) near which it passes.
        roughness: sigma of its deviation from a straight line.
        aperture: its median half width; it narrows and widens along its length.
        rng: draws its profile.

    Returns:
        float64 [H, W] in [0, 1]: 1 inside.
    """
    c, s = math.cos(angle), math.sin(angle)
    along = c * (x - offset[1]) + s * (y - offset[0])
    across = c * (y - offset[0]) - s * (x - offset[1])
    at = np.linspace(-2, 2, 512)
    middle = np.interp(along, at, roughness * self_affine_line(rng, len(at)))
    width = np.interp(along, at, aperture * np.exp(0.5 * self_affine_line(rng, len(at))))
    pixel = 1 / y.shape[1]
    inside = (width - np.abs(across - middle)) / pixel + 0.5
    return np.clip(inside, 0, 1)


def breccia(
    y: np.ndarray,
    x: np.ndarray,
    *,
    clast: float,
    matrix: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angular clasts in a matrix: the cells of random points, shrunk, their edges roughened.

    The sizes of clasts spread widely, as in nature (Jebrak 1997, Ore Geol. Rev. 12, 111): points
    are denser in some places than in others.

    Args:
        y: float [H, W].
        x: float [H, W].
        clast: typical distance between the middles of clasts.
        matrix: width of the matrix between them, as a fraction of that distance.
        rng: draws them.

    Returns:
        inside: float64 [H, W] in [0, 1], 1 in a clast and 0 in the matrix.
        tone: float64 [H, W], a standard normal number for every clast.
        lamination: float64 [H, W], stripes of another direction in every clast, in [-1, 1].
    """
    from scipy.spatial import cKDTree

    height = float(y.max()) + clast
    count = max(4, round(1.5 * (height + clast) * (1 + 2 * clast) / clast**2))
    points = rng.uniform([-clast, -clast], [height, 1 + clast], (count, 2))
    crowd = rng.uniform([0, 0], [height, 1], (3, 2))
    near = np.exp(-((points[:, None] - crowd) ** 2).sum(axis=2) / 0.04).sum(axis=1)
    points = points[rng.uniform(size=count) < 0.35 + 0.65 * np.minimum(near, 1)]
    rough = [0.04 * clast * random_field(rng, y.shape, y.shape[1] / 48) for _ in range(2)]
    places = np.stack([y + rough[0], x + rough[1]], axis=-1).reshape(-1, 2)
    distances, members = cKDTree(points).query(places, k=2)
    gap = ((distances[:, 1] - distances[:, 0]) / clast).reshape(y.shape)
    owner = members[:, 0].reshape(y.shape)
    inside = np.clip((gap - matrix) * clast * y.shape[1] + 0.5, 0, 1)
    angles = rng.uniform(0, np.pi, len(points))[owner]
    lamination = np.sin(2 * np.pi * (y * np.cos(angles) + x * np.sin(angles)) / (0.35 * clast))
    return inside, rng.standard_normal(len(points))[owner], lamination


def grains(rng: np.random.Generator, shape: tuple[int, int], size: float) -> np.ndarray:
    """The texture of a rock: grains of one size, and coarser mottling.

    Args:
        rng: draws it.
        shape: (H, W).
        size: sigma of a grain in pixels.

    Returns:
        float64 [H, W]: mean 0, standard deviation about 1.
    """
    fine = random_field(rng, shape, size)
    mottling = random_field(rng, shape, shape[1] / 12)
    return 0.85 * fine + 0.5 * mottling


def specks(rng: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    """Single dark or bright grains.

    Args:
        rng: draws them.
        shape: (H, W).
        share: of the pixels that hold one.

    Returns:
        float64 [H, W]: 0, or about -1 or 1 on a speck.
    """
    seeds = (rng.uniform(size=shape) < share) * rng.choice([-1.0, 1.0], shape, p=[0.7, 0.3])
    return np.clip(3 * smooth(seeds, 0.6), -1, 1)
