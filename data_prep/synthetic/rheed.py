"""Synthetic RHEED patterns: dark images with a few bright features and a large dynamic range.

The geometry is kinematic (`rheed_geometry`); the classes are what growers read from a pattern:

* `spots`: transmission through islands, three-dimensional growth;
* `streaks`: a flat surface of short terraces;
* `rings`: a polycrystalline layer;
* `1x1`, `2x2`, `root3`: a well-ordered hexagonal surface, unreconstructed or with the extra rods
  of fractional order of a (2 x 2) or (root 3 x root 3) R30 reconstruction.

The surface lies at the top, as on many cameras: above its shadow edge nothing but the direct beam
is seen. Intensities: a random smooth structure factor, a Debye-Waller factor, a strong specular
spot, a diffuse background (inelastic electrons, strongest near the specular spot) with
Kikuchi lines, the rim of a round screen, photon and camera noise; bright spots may saturate.
Angles are in degrees, lengths in angstroms.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from data_prep.settings import setting
from data_prep.synthetic.rheed_geometry import (
    Screen,
    fcc_cell,
    hexagonal_cell,
    kikuchi_lines,
    make_screen,
    powder_rings,
    rods,
    transmission_spots,
    wave_number,
)
from data_prep.synthetic.sample import (
    Parameters,
    Range,
    Request,
    Sample,
    SampleRow,
    between,
    image_generator,
    single_image,
    to_levels,
)

RHEED_CLASSES = {
    "spots": "transmission through islands: three-dimensional growth",
    "streaks": "a flat surface of short terraces",
    "rings": "a polycrystalline layer",
    "1x1": "a well-ordered surface without reconstruction",
    "2x2": "the same with rods of half order",
    "root3": "the same with rods of third order, (root 3 x root 3) R30",
}

_RECONSTRUCTIONS = ("1x1", "2x2", "root3")
_BEAM, _SURFACE, _CAMERA = "Beam", "Surface", "Camera"


@dataclass(frozen=True)
class RheedParameters(Parameters):
    """Settings of RHEED patterns; ranges are drawn from for each image."""

    TITLE: ClassVar[str] = "--kind=rheed"

    energy: Range = setting(
        (12, 20), "Energy of the electrons in keV.", topic=_BEAM, low=1, high=200
    )
    grazing: Range = setting(
        (1.5, 3.5), "Angle of the beam to the surface in degrees.", topic=_BEAM, low=0.1, high=10
    )
    spread: Range = setting(
        (0.08, 0.16), "Angular spread of the beam in degrees.", topic=_BEAM, low=0, high=2
    )
    misalignment: float = setting(
        1.5,
        "Azimuths are drawn from +- this about a high-symmetry direction, degrees.",
        topic=_BEAM,
        low=0,
        high=30,
    )
    surface_spacing: Range = setting(
        (3.4, 4.2), "Lattice constant of the hexagonal surface.", topic=_SURFACE, low=1, high=20
    )
    terrace: Range = setting(
        (30, 90), "Coherent size of well-ordered terraces.", topic=_SURFACE, low=1
    )
    short_terrace: Range = setting(
        (6, 14), "Coherent size of the terraces of streaks.", topic=_SURFACE, low=1
    )
    island: Range = setting(
        (
            15,
            40,
        ),
        "Size of islands and grains.",
        topic=_SURFACE,
        low=1,
    )
    fractional: Range = setting(
        (0.25, 0.7),
        "Intensity of fractional orders relative to whole.",
        topic=_SURFACE,
        low=0,
        high=10,
    )
    half_view: Range = setting(
        (6, 9), "Half of the screen's width in degrees.", topic=_CAMERA, low=1, high=40
    )
    diffuse: Range = setting(
        (0.02, 0.08),
        "Height of the diffuse background over full scale.",
        topic=_CAMERA,
        low=0,
        high=1,
    )
    exposure: Range = setting(
        (0.5, 2.0), "Brightest feature over full scale; above 1 it saturates.", topic=_CAMERA, low=0
    )
    electrons: Range = setting(
        (300, 3000), "Detected electrons per pixel at full scale.", topic=_CAMERA, low=1
    )
    read_noise: Range = setting(
        (0.001, 0.005),
        "Sigma of the camera's own noise over full scale.",
        topic=_CAMERA,
        low=0,
        high=1,
    )


@dataclass(frozen=True)
class Pattern:
    """One drawn pattern: everything about an image but its noise; angles in degrees.

    Attributes:
        class_name: its class.
        energy: in keV.
        grazing: angle of the beam to the surface.
        spread: angular spread of the beam.
        azimuth: of the surface's first lattice vector to the beam.
        surface_spacing: lattice constant of the surface, in angstroms.
        coherence: size of terraces, islands or grains, in angstroms.
        thickness: of islands along the beam, in angstroms.
        fractional: intensity of fractional orders.
        specular: intensity of the specular spot relative to other rods.
        damping: exponent of the Debye-Waller factor, in square angstroms.
        texture: how much the intensity varies along the rings.
        half_view: half of the screen's width.
        edge: distance of the shadow edge from the top, as a fraction of the height.
        shift: of the beam from the middle, as a fraction of the width.
        rim: radius of the screen, as a fraction of the width.
        direct_beam: brightness of the direct beam past the edge of the sample.
        diffuse: height of the background.
        diffuse_width: its width.
        kikuchi: height of the lines relative to the background.
        exposure: brightest feature over full scale.
        electrons: per pixel at full scale.
        read_noise: sigma of the camera's noise.
    """

    class_name: str
    energy: float
    grazing: float
    spread: float
    azimuth: float
    surface_spacing: float
    coherence: float
    thickness: float
    fractional: float
    specular: float
    damping: float
    texture: float
    half_view: float
    edge: float
    shift: float
    rim: float
    direct_beam: float
    diffuse: float
    diffuse_width: float
    kikuchi: float
    exposure: float
    electrons: float
    read_noise: float


def draw_pattern(class_name: str, parameters: RheedParameters, rng: np.random.Generator) -> Pattern:
    """Draws a pattern of a class; `rng` is advanced alike whatever the class."""
    off = between(rng, (-parameters.misalignment, parameters.misalignment))
    terrace = between(rng, parameters.terrace)
    short, island = between(rng, parameters.short_terrace), between(rng, parameters.island)
    fractional = between(rng, parameters.fractional)
    direct = between(rng, (-1.0, 1.0))
    return Pattern(
        class_name=class_name,
        energy=between(rng, parameters.energy),
        grazing=between(rng, parameters.grazing),
        spread=between(rng, parameters.spread),
        azimuth=off + 30.0 * int(rng.integers(2)),
        surface_spacing=between(rng, parameters.surface_spacing),
        coherence={"streaks": short, "spots": island, "rings": island}.get(class_name, terrace),
        thickness=between(rng, (4, 10)),
        fractional=fractional if class_name in {"2x2", "root3"} else 0.0,
        specular=between(rng, (1, 4)),
        damping=between(rng, (0.01, 0.05)),
        texture=between(rng, (0.1, 0.8)),
        half_view=between(rng, parameters.half_view),
        edge=between(rng, (0.06, 0.18)),
        shift=between(rng, (-0.08, 0.08)),
        rim=between(rng, (0.47, 0.6)),
        direct_beam=max(direct, 0.0),
        diffuse=between(rng, parameters.diffuse),
        diffuse_width=between(rng, (2, 6)),
        kikuchi=between(rng, (0.1, 0.5)),
        exposure=between(rng, parameters.exposure),
        electrons=between(rng, parameters.electrons),
        read_noise=between(rng, parameters.read_noise),
    )


def render(pattern: Pattern, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """The pattern before noise.

    Args:
        pattern: what to show.
        height: of the image in pixels.
        width: of the image in pixels.
        rng: draws the structure factor and the texture.

    Returns:
        float64 [H, W], 1 = full scale of the camera, which may be exceeded.
    """
    factor = 2  # samples per pixel and axis: spots are hardly larger than pixels
    pixel = math.radians(2 * pattern.half_view) / (width * factor)
    across = (np.arange(width * factor) - width * factor * (0.5 + pattern.shift) + 0.5) * pixel
    down = (np.arange(height * factor) - height * factor * pattern.edge + 0.5) * pixel
    u, v = np.meshgrid(across, down)
    grazing = math.radians(pattern.grazing)
    spread = max(math.radians(pattern.spread), pixel)
    screen = make_screen(u, v, wave_number(pattern.energy), grazing, spread)
    azimuth = math.radians(pattern.azimuth)
    bulk = fcc_cell(pattern.surface_spacing * math.sqrt(2), azimuth)
    features = _features(pattern, screen, azimuth, bulk, rng)
    features *= np.exp(-pattern.damping * (screen.q**2).sum(axis=0))
    near = np.hypot(u, v - math.tan(grazing)) / math.radians(pattern.diffuse_width)
    lines = np.zeros((height, width))
    if pattern.class_name != "rings":  # its grains have no planes in common
        lines = kikuchi_lines(screen.every(factor), bulk, grazing, 2 * spread)
    lines = lines.repeat(factor, axis=0).repeat(factor, axis=1)  # they are wide
    diffuse = pattern.diffuse * (0.3 + 0.7 / (1 + near**2)) * (1 + pattern.kikuchi * lines)
    lit = 1 / (1 + np.exp(-v / pixel / 2))
    direct = _spot(u, v + math.tan(grazing), spread)
    image = lit * (
        pattern.exposure * features / max(float((lit * features).max()), 1e-12) + diffuse
    )
    image += pattern.direct_beam * direct + 0.1 * pattern.diffuse
    reach = np.hypot(
        u / math.radians(2 * pattern.half_view),
        (down[:, None] - down.mean()) / (pixel * width * factor),
    )
    image *= 1 / (1 + np.exp((reach - pattern.rim) / 0.01))
    return image.reshape(height, factor, width, factor).mean(axis=(1, 3))


def _features(
    pattern: Pattern, screen: Screen, azimuth: float, bulk: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The diffracted beams of the class, before the Debye-Waller factor."""
    basis = rng.uniform(-0.25, 0.25, (2, 3)) * pattern.surface_spacing
    angles = rng.uniform(0, 2 * np.pi, 3)
    if pattern.class_name == "rings":
        around = np.arctan2(screen.u, screen.v)
        waves = sum(np.cos((2 + 3 * n) * around + angle) for n, angle in enumerate(angles)) / 3
        grains = powder_rings(screen, pattern.surface_spacing * math.sqrt(2), pattern.coherence)
        return grains * (1 + pattern.texture * waves)
    phases = np.tensordot(basis, screen.q, axes=1)
    structure = np.abs(1 + np.exp(1j * phases).sum(axis=0)) ** 2 / 9 + 0.2
    if pattern.class_name == "spots":
        return structure * transmission_spots(screen, bulk, pattern.coherence, pattern.thickness)
    cell = hexagonal_cell(pattern.surface_spacing, azimuth)
    order = pattern.class_name if pattern.class_name in _RECONSTRUCTIONS else "1x1"
    supercell = hexagonal_cell(pattern.surface_spacing, azimuth, order)
    surface = structure * rods(screen, cell, supercell, pattern.coherence, pattern.fractional)
    specular = _spot(screen.u, screen.v - math.tan(math.radians(pattern.grazing)), screen.spread)
    return surface + pattern.specular * specular


def _spot(u: np.ndarray, v: np.ndarray, spread: float) -> np.ndarray:
    return np.exp(-(u**2 + v**2) / (2 * spread**2))


def rheed_sample(class_name: str, index: int, request: Request) -> Sample:
    """One image of the set, the same whatever else is made.

    Args:
        class_name: one of `RHEED_CLASSES`.
        index: which image of the class, from 0.
        request: seed, size, settings and format.

    Returns:
        The image, its record and what was drawn.
    """
    parameters = request.parameters
    assert isinstance(parameters, RheedParameters)
    rng = image_generator(request.seed, f"rheed/{class_name}", index)
    pattern = draw_pattern(class_name, parameters, rng)
    image = render(pattern, request.height, request.width, rng)
    image = rng.poisson(np.maximum(image, 0) * pattern.electrons) / pattern.electrons
    image += rng.normal(0, pattern.read_noise, image.shape)
    row: SampleRow = dict(vars(pattern))
    pixels = to_levels(image, request.file_format)
    return single_image(class_name, index, pixels, row, request.file_format)
