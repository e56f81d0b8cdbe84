"""Synthetic colour photographs of slabbed drill cores.

The classes are what a core logger marks:

* `none`: massive rock, nothing to see but its grains;
* `layered`: beds of different tone, tilted and wavy;
* `crack`: one or several rough fractures, open (dark) or filled (pale), in massive rock;
* `brecciated`: angular clasts in a matrix.

The rock has a colour, grains, mottling and specks (`core_features`). All classes may show traces
of bedding, a scratch of the saw, uneven light, and the tray beside the core: none of these tells
the class. Lengths are fractions of the image's width.
"""

import math
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np

from data_prep.synthetic.core_features import breccia, fracture, grains, layers, specks
from data_prep.synthetic.draws import between, image_generator, whole_between
from data_prep.synthetic.parameters import Meaning, Parameters, Range
from data_prep.synthetic.sample import Request, Sample, single_image, to_levels

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
    """What varies between images of one class."""

    grain_contrast: Annotated[
        Range, Meaning("Sigma of the grains' brightness.", topic=_ROCK, most=0.5)
    ] = (0.02, 0.07)
    layer_contrast: Annotated[
        Range, Meaning("Sigma of the beds' brightness.", topic=_STRUCTURE, most=0.5)
    ] = (0.04, 0.12)
    layer_thickness: Annotated[
        Range, Meaning("Median thickness of a bed.", topic=_STRUCTURE, least=0.005, most=2)
    ] = (0.04, 0.15)
    dip: Annotated[Range, Meaning("Dip of the beds in degrees.", topic=_STRUCTURE, most=90)] = (
        0,
        40,
    )
    cracks: Annotated[
        Range, Meaning("How many fractures.", topic=_STRUCTURE, least=1, most=100)
    ] = (1, 3)
    aperture: Annotated[
        Range, Meaning("Half width of a fracture.", topic=_STRUCTURE, least=0.001, most=0.5)
    ] = (0.004, 0.014)
    clast: Annotated[
        Range, Meaning("Distance between clasts.", topic=_STRUCTURE, least=0.02, most=1)
    ] = (0.09, 0.22)
    clast_contrast: Annotated[
        Range, Meaning("Sigma of the clasts' brightness.", topic=_STRUCTURE, most=0.5)
    ] = (0.05, 0.14)
    photo_noise: Annotated[
        Range, Meaning("Sigma of the camera's noise.", topic=_PICTURE, most=0.5)
    ] = (0.005, 0.02)


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
        colour = _FILLING if piece.filled else 0.22 * image
        image = inside * colour + (1 - inside) * image
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
