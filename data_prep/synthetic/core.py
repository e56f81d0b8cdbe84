"""Synthetic colour photographs of slabbed drill cores.

The classes are what a core logger marks:

* `none`: massive rock, nothing to see but its grains;
* `layered`: beds of different tone, tilted and wavy;
* `crack`: one or several rough fractures, open (dark) or filled (pale), in massive rock;
* `brecciated`: angular clasts in a matrix.

The rock has a colour, grains, mottling and specks. All classes may show traces of bedding, a
scratch of the saw, uneven light, and the tray beside the core: none of these tells the class.

Lengths are fractions of the image's width. The functions of single features (`layers`, `fracture`,
`breccia`) take the pixel grid (y, x) in that unit, so that an image of any size shows the same
rock, and give maps that `render` mixes into colours.
"""

import math
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from data_prep.settings import setting
from data_prep.synthetic.noise import random_field, smooth
from data_prep.synthetic.sample import (
    Parameters,
    Range,
    Request,
    Sample,
    between,
    image_generator,
    single_image,
    to_levels,
    whole_between,
)


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


CORE_CLASSES = {
    "none": "massive rock",
    "layered": "beds of different tone",
    "crack": "rough fractures, open or filled",
    "brecciated": "angular clasts in a matrix",
}

# Typical colours of rocks in sRGB: pale sandstone, grey, olive, brown, red, dark.
_ROCKS = np.array(
    [
        [0.72, 0.71, 0.66],
        [0.55, 0.56, 0.57],
        [0.47, 0.45, 0.37],
        [0.58, 0.48, 0.38],
        [0.60, 0.42, 0.35],
        [0.36, 0.36, 0.36],
    ]
)
_TRAY = np.array([0.55, 0.42, 0.25])
_FILLING = np.array([0.86, 0.84, 0.79])  # calcite, quartz
_PALE = 0.55
_ROCK, _STRUCTURE, _PICTURE = "Rock", "Structures", "Photograph"


@dataclass(frozen=True)
class CoreParameters(Parameters):
    """Settings of core photographs; ranges are drawn from for each image."""

    TITLE: ClassVar[str] = "--kind=core"

    grain_contrast: Range = setting(
        (0.02, 0.07), "Sigma of the grains' brightness.", topic=_ROCK, low=0, high=0.5
    )
    layer_contrast: Range = setting(
        (0.04, 0.12), "Sigma of the beds' brightness.", topic=_STRUCTURE, low=0, high=0.5
    )
    layer_thickness: Range = setting(
        (0.04, 0.15), "Median thickness of a bed.", topic=_STRUCTURE, low=0.005, high=2
    )
    dip: Range = setting(
        (
            0,
            40,
        ),
        "Dip of the beds in degrees.",
        topic=_STRUCTURE,
        low=0,
        high=90,
    )
    cracks: Range = setting((1, 3), "How many fractures.", topic=_STRUCTURE, low=1, high=100)
    aperture: Range = setting(
        (0.004, 0.014), "Half width of a fracture.", topic=_STRUCTURE, low=0.001, high=0.5
    )
    clast: Range = setting(
        (0.09, 0.22), "Distance between clasts.", topic=_STRUCTURE, low=0.02, high=1
    )
    clast_contrast: Range = setting(
        (0.05, 0.14), "Sigma of the clasts' brightness.", topic=_STRUCTURE, low=0, high=0.5
    )
    photo_noise: Range = setting(
        (0.005, 0.02), "Sigma of the camera's noise.", topic=_PICTURE, low=0, high=0.5
    )


@dataclass(frozen=True)
class CorePiece:
    """One drawn piece of core: everything about an image but its random texture.

    Attributes:
        class_name: its class.
        red: of the rock, in [0, 1]; so green and blue.
        green: of the rock.
        blue: of the rock.
        grain_size: sigma of a grain.
        grain_contrast: sigma of the grains' brightness.
        speck_share: share of the pixels with a dark or bright grain.
        layer_contrast: of the beds; faint traces in the other classes.
        layer_thickness: median thickness of a bed.
        dip: of the beds, in degrees.
        waviness: of the beds.
        cracks: number of fractures.
        aperture: median half width of the fractures.
        filled: 1 if the fractures are filled, 0 if they are open.
        clast: distance between clasts; 0 without.
        clast_contrast: of the clasts.
        matrix: width of the matrix over the clasts' distance.
        matrix_tone: brightness of the matrix relative to the rock.
        light: brightness gained from left to right.
        curvature: darkening towards both sides.
        margin: width of the tray seen on the left (negative: on the right).
        photo_noise: sigma of the camera's noise.
    """

    class_name: str
    red: float
    green: float
    blue: float
    grain_size: float
    grain_contrast: float
    speck_share: float
    layer_contrast: float
    layer_thickness: float
    dip: float
    waviness: float
    cracks: int
    aperture: float
    filled: int
    clast: float
    clast_contrast: float
    matrix: float
    matrix_tone: float
    light: float
    curvature: float
    margin: float
    photo_noise: float


def draw_piece(class_name: str, parameters: CoreParameters, rng: np.random.Generator) -> CorePiece:
    """Draws a piece of a class; `rng` is advanced alike whatever the class."""
    rock = _ROCKS[rng.integers(len(_ROCKS))] * between(rng, (0.85, 1.15))
    rock = np.clip(rock + rng.normal(0, 0.012, 3), 0.1, 0.95)
    traces = between(rng, (0, 0.3)) * parameters.layer_contrast[0]
    layer_contrast, clast = between(rng, parameters.layer_contrast), between(rng, parameters.clast)
    cracks = whole_between(rng, parameters.cracks)
    margin = between(rng, (-0.12, 0.12))
    return CorePiece(
        class_name=class_name,
        red=float(rock[0]),
        green=float(rock[1]),
        blue=float(rock[2]),
        grain_size=between(rng, (0.004, 0.012)),
        grain_contrast=between(rng, parameters.grain_contrast),
        speck_share=between(rng, (0, 0.008)),
        layer_contrast=layer_contrast if class_name == "layered" else traces,
        layer_thickness=between(rng, parameters.layer_thickness),
        dip=between(rng, parameters.dip) * float(rng.choice([-1, 1])),
        waviness=between(rng, (0.0, 0.02)),
        cracks=cracks if class_name == "crack" else 0,
        aperture=between(rng, parameters.aperture),
        # A pale filling would not be seen in pale rock.
        filled=int(rng.uniform() < 0.35 and rock.mean() < _PALE),
        clast=clast if class_name == "brecciated" else 0.0,
        clast_contrast=between(rng, parameters.clast_contrast),
        matrix=between(rng, (0.1, 0.3)),
        matrix_tone=between(rng, (0.08, 0.3)) * float(rng.choice([-1, 1], p=[0.7, 0.3])),
        light=between(rng, (-0.15, 0.15)),
        curvature=between(rng, (0, 0.25)),
        margin=margin if abs(margin) > 0.04 else 0.0,
        photo_noise=between(rng, parameters.photo_noise),
    )


def render(piece: CorePiece, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """The photograph of a piece.

    Args:
        piece: what to show.
        height: of the image in pixels.
        width: of the image in pixels.
        rng: draws the texture and the noise.

    Returns:
        float64 [height, width, 3] in [0, 1], sRGB.
    """
    y, x = np.meshgrid(np.arange(height) / width, np.arange(width) / width, indexing="ij")
    shape = (height, width)
    beds = layers(
        y,
        x,
        dip=math.radians(piece.dip),
        thickness=piece.layer_thickness,
        waviness=piece.waviness,
        rng=rng,
    )
    tone = 1 + piece.layer_contrast / 0.6 * beds
    tone += piece.grain_contrast / 0.6 * grains(rng, shape, max(piece.grain_size * width, 0.5))
    if piece.clast:
        inside, clasts, stripes = breccia(y, x, clast=piece.clast, matrix=piece.matrix, rng=rng)
        in_clast = piece.clast_contrast / 0.6 * (clasts + 0.3 * stripes)
        tone += inside * in_clast + (1 - inside) * piece.matrix_tone
    tone += 0.25 * specks(rng, shape, piece.speck_share)
    image = tone[:, :, None] * np.array([piece.red, piece.green, piece.blue])
    steep = rng.uniform(size=piece.cracks) < 0.3
    for is_steep in steep:
        inside = fracture(
            y,
            x,
            angle=between(rng, (0.9, 1.5) if is_steep else (-0.5, 0.5)),
            offset=(between(rng, (0.15, 0.85)) * height / width, between(rng, (0.3, 0.7))),
            roughness=between(rng, (0.01, 0.06)),
            aperture=piece.aperture,
            rng=rng,
        )[:, :, None]
        color = _FILLING if piece.filled else 0.22 * image
        image = inside * color + (1 - inside) * image
    return _photograph(image, piece, x, rng)


def _photograph(
    image: np.ndarray, piece: CorePiece, x: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Light, the tray beside the core, and the camera."""
    shade = 1 + piece.light * (x - 0.5) - piece.curvature * (2 * x - 1) ** 2
    image = image * shade[:, :, None]
    edge = x if piece.margin > 0 else 1 - x
    distance = edge - abs(piece.margin)
    tray = (distance < 0) & (piece.margin != 0)
    shadow = np.where((distance < 0) & (distance > -0.03), 0.45, 1.0)
    image = np.where(tray[:, :, None], _TRAY * shadow[:, :, None], image)
    return np.clip(image + rng.normal(0, piece.photo_noise, image.shape), 0, 1)


def core_sample(class_name: str, index: int, request: Request) -> Sample:
    """One image of the set, the same whatever else is made.

    Args:
        class_name: one of `CORE_CLASSES`.
        index: which image of the class, from 0.
        request: seed, size and settings.

    Returns:
        The image, its record and what was drawn.
    """
    parameters = request.parameters
    assert isinstance(parameters, CoreParameters)
    rng = image_generator(request.seed, f"core/{class_name}", index)
    piece = draw_piece(class_name, parameters, rng)
    pixels = to_levels(render(piece, request.height, request.width, rng), request.file_format)
    return single_image(class_name, index, pixels, asdict(piece), request.file_format)
