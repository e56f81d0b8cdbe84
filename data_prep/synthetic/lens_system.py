"""The parts of a simulated gravitational lens, drawn at random, and their deflection angles.

A ray that is seen at the angle x comes from beta = x - alpha(x). The deflection alpha is the
gradient of the lensing potential; its divergence is twice the convergence kappa, the surface
density in units of the critical one, and its mean radial part on a circle of radius R is the mass
inside over R (Schneider, Ehlers & Falco 1992, "Gravitational Lenses"). Angles are in arcseconds.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from data_prep.settings import setting
from data_prep.synthetic.sample import Parameters, Range, SampleRow, between, whole_between

Vector = tuple[np.ndarray, np.ndarray]


class Deflector(Protocol):
    """A mass whose deflection is known."""

    def deflection(self, x: np.ndarray, y: np.ndarray) -> Vector:
        """The deflection (alpha_x, alpha_y) at (x, y); float64 of the same shape."""
        ...


@dataclass(frozen=True)
class Ellipsoid:
    """Singular isothermal ellipsoid: kappa = theta_e / 2 / sqrt(q x^2 + y^2 / q) on its axes.

    Kormann, Schneider & Bartelmann 1994, A&A 284, 285, in the normalisation of lenstronomy. With
    q = 1 it is the singular isothermal sphere, whose deflection is theta_e everywhere.

    Attributes:
        theta_e: Einstein radius on the intermediate axis.
        axis_ratio: minor over major axis, q, in (0, 1].
        angle: of the major axis, in radians from x towards y.
        x: of its centre.
        y: of its centre.
    """

    theta_e: float
    axis_ratio: float = 1.0
    angle: float = 0.0
    x: float = 0.0
    y: float = 0.0

    def deflection(self, x: np.ndarray, y: np.ndarray) -> Vector:
        """The deflection at (x, y); 0 in the centre itself."""
        q = self.axis_ratio
        along, across = _turned(x - self.x, y - self.y, self.angle)
        psi = np.maximum(np.sqrt((q * along) ** 2 + across**2), 1e-12)
        # For q -> 1 both functions become along / psi and across / psi; 1e-4 is there already.
        f = max(math.sqrt(1 - q * q), 1e-4)
        scale = self.theta_e * math.sqrt(q) / f
        alpha = scale * np.arctan(f * along / psi), scale * np.arctanh(f * across / psi)
        return _turned(*alpha, -self.angle)


@dataclass(frozen=True)
class Shear:
    """The tidal field of masses outside the picture: kappa = 0.

    Attributes:
        strength: gamma.
        angle: direction along which images are stretched, in radians from x towards y.
    """

    strength: float
    angle: float = 0.0

    def deflection(self, x: np.ndarray, y: np.ndarray) -> Vector:
        """The deflection at (x, y)."""
        one = self.strength * math.cos(2 * self.angle)
        two = self.strength * math.sin(2 * self.angle)
        return one * x + two * y, two * x - one * y


@dataclass(frozen=True)
class Line:
    """A straight line of mass of uniform density, seen from the side.

    The vortices of a superfluid dark matter halo are such lines in the studies of Alexander et al.
    (2020, ApJ 893, 15). In the complex plane, with the line on the real axis, the conjugate
    deflection is the integral of a point mass's 1 / (z - s) along it.

    Attributes:
        theta_e: Einstein radius of a point of the same mass.
        length: from end to end.
        angle: of the line, in radians from x towards y.
        x: of its middle.
        y: of its middle.
    """

    theta_e: float
    length: float
    angle: float = 0.0
    x: float = 0.0
    y: float = 0.0

    def deflection(self, x: np.ndarray, y: np.ndarray) -> Vector:
        """The deflection at (x, y); it jumps by 2 pi theta_e^2 / length across the line."""
        along, across = _turned(x - self.x, y - self.y, self.angle)
        half = self.length / 2
        ahead, behind = along + half, along - half
        # Divergent at the very ends, hence the tiny lower bound.
        ratio = np.maximum(ahead**2 + across**2, 1e-18) / np.maximum(behind**2 + across**2, 1e-18)
        density = self.theta_e**2 / self.length
        turn = np.arctan2(across, behind) - np.arctan2(across, ahead)
        return _turned(density * np.log(ratio) / 2, density * turn, -self.angle)


def _turned(x: np.ndarray, y: np.ndarray, angle: float) -> Vector:
    """Coordinates on axes that are turned by `angle`."""
    c, s = math.cos(angle), math.sin(angle)
    return c * x + s * y, c * y - s * x


def total_deflection(deflectors: tuple[Deflector, ...], x: np.ndarray, y: np.ndarray) -> Vector:
    """The deflections of all masses, added up."""
    alpha_x, alpha_y = np.zeros_like(x), np.zeros_like(y)
    for deflector in deflectors:
        more_x, more_y = deflector.deflection(x, y)
        alpha_x += more_x
        alpha_y += more_y
    return alpha_x, alpha_y


def mean_radial_deflection(deflectors: tuple[Deflector, ...], radius: float) -> float:
    """The mean radial deflection on a circle around the origin: the mass inside over its radius."""
    angles = (np.arange(360) + 0.5) * (2 * np.pi / 360)
    c, s = np.cos(angles), np.sin(angles)
    alpha_x, alpha_y = total_deflection(deflectors, radius * c, radius * s)
    return float((alpha_x * c + alpha_y * s).mean())


LENSING_CLASSES = {
    "no_lens": "a galaxy and an unlensed neighbour",
    "smooth": "a lens without substructure: an isothermal ellipsoid and shear",
    "subhalo": "the same with subhaloes, isothermal spheres near the ring",
    "vortex": "the same with a vortex, a straight line of mass",
}

_GALAXIES, _DARK, _TELESCOPE = "Galaxies", "Lens", "Telescope"


@dataclass(frozen=True)
class LensingParameters(Parameters):
    """Settings of lens images; ranges are drawn from for each image, lengths in arcseconds."""

    TITLE: ClassVar[str] = "--kind=lensing"

    engine: Literal["numpy", "lenstronomy"] = setting(
        "numpy", "What traces the rays; lenstronomy comes with simclr-tf[lensing].", topic=_DARK
    )
    einstein_radius: Range = setting(
        (
            0.8,
            1.6,
        ),
        "Radius of the ring.",
        topic=_DARK,
        low=0.05,
    )
    mass_axis_ratio: Range = setting(
        (0.65, 0.95), "Minor over major axis of the mass.", topic=_DARK, low=0.2, high=1
    )
    shear: Range = setting(
        (
            0.0,
            0.08,
        ),
        "Strength of the outer shear.",
        topic=_DARK,
        low=0,
        high=0.5,
    )
    subhaloes: Range = setting((4, 10), "How many subhaloes.", topic=_DARK, low=0, high=1000)
    subhalo_radius: Range = setting(
        (0.02, 0.07), "Einstein radius of a subhalo.", topic=_DARK, low=0, high=1
    )
    vortex_mass: Range = setting(
        (0.04, 0.12), "Mass of the vortex over that inside the ring.", topic=_DARK, low=0, high=0.5
    )
    vortex_length: Range = setting(
        (0.8, 1.6), "Length of the vortex over the ring's radius.", topic=_DARK, low=0.01
    )
    source_radius: Range = setting(
        (0.1, 0.25), "Effective radius of the source.", topic=_GALAXIES, low=0.01
    )
    source_offset: Range = setting(
        (0.0, 0.35),
        "Distance of the source from the axis over the ring's radius.",
        topic=_GALAXIES,
        low=0,
    )
    light: Range = setting(
        (0.2, 0.6), "Brightness of the lens galaxy at its effective radius.", topic=_GALAXIES, low=0
    )
    light_radius: Range = setting(
        (0.25, 0.6), "Effective radius of the lens galaxy.", topic=_GALAXIES, low=0.01
    )
    field_of_view: float = setting(5.12, "Side of the image.", topic=_TELESCOPE, low=0.1)
    psf_fwhm: Range = setting(
        (0.09, 0.15), "Full width at half maximum of a point.", topic=_TELESCOPE, low=0.001
    )
    photons: Range = setting(
        (20, 80), "Photons of unit brightness in 0.08 x 0.08.", topic=_TELESCOPE, low=0.01
    )
    background: Range = setting(
        (0.05, 0.2),
        "Sigma of the background noise in 0.08 x 0.08, in brightness.",
        topic=_TELESCOPE,
        low=0,
    )
    softening: float = setting(
        0.5, "Brightness where the stretch of a PNG bends.", topic=_TELESCOPE, low=0.001
    )
    nan_border: Range = setting(
        (0.0, 0.0),
        "Width of a border of NaN on each side over the image's; only with --format=npy.",
        topic=_TELESCOPE,
        low=0,
        high=0.4,
    )


@dataclass(frozen=True)
class Galaxy:
    """Elliptical Sersic light.

    Attributes:
        brightness: at the effective radius.
        radius: effective radius on the intermediate axis.
        index: Sersic index n: 1 an exponential disk, 4 a de Vaucouleurs spheroid.
        axis_ratio: minor over major axis.
        angle: of the major axis, in radians from x towards y.
        x: of its centre.
        y: of its centre.
    """

    brightness: float
    radius: float
    index: float
    axis_ratio: float
    angle: float
    x: float = 0.0
    y: float = 0.0

    def light(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Surface brightness at (x, y)."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        along = c * (x - self.x) + s * (y - self.y)
        across = c * (y - self.y) - s * (x - self.x)
        squared = self.axis_ratio * along**2 + across**2 / self.axis_ratio
        slope = 1.9992 * self.index - 0.3271  # half of the light lies inside the radius
        relative = (squared / self.radius**2) ** (0.5 / self.index)
        return self.brightness * np.exp(-slope * (relative - 1))


@dataclass(frozen=True)
class LensSystem:
    """One drawn picture: everything about it but its noise. The lens lies at the origin.

    Attributes:
        class_name: its class.
        deflectors: the masses.
        source: the galaxy behind, or beside in `no_lens`.
        lens: the galaxy in front.
        row: all that was drawn, for a table.
    """

    class_name: str
    deflectors: tuple[Deflector, ...]
    source: Galaxy
    lens: Galaxy
    row: SampleRow


def draw_system(
    class_name: str, parameters: LensingParameters, rng: np.random.Generator
) -> LensSystem:
    """Draws a system of a class.

    Args:
        class_name: one of `LENSING_CLASSES`.
        parameters: what to draw from.
        rng: advanced by the draws.

    Returns:
        The system.
    """
    ring = between(rng, parameters.einstein_radius)
    turn = between(rng, (0, math.pi))
    mass = Ellipsoid(ring, between(rng, parameters.mass_axis_ratio), turn)
    shear = Shear(between(rng, parameters.shear), between(rng, (0, math.pi)))
    lens = Galaxy(
        brightness=between(rng, parameters.light),
        radius=between(rng, parameters.light_radius),
        index=between(rng, (2.5, 4)),
        axis_ratio=between(rng, (0.65, 0.95)),
        angle=turn + between(rng, (-0.2, 0.2)),
    )
    lensed = class_name != "no_lens"
    distance = between(rng, parameters.source_offset if lensed else (0.6, 1.3)) * ring
    direction = between(rng, (0, 2 * math.pi))
    source = Galaxy(
        brightness=1.0,
        radius=between(rng, parameters.source_radius),
        index=between(rng, (0.8, 1.5)),
        axis_ratio=between(rng, (0.5, 0.95)),
        angle=between(rng, (0, math.pi)),
        x=distance * math.cos(direction),
        y=distance * math.sin(direction),
    )
    added = _substructure(class_name, ring, parameters, rng)
    # Gauss: what the added masses deflect on the ring is taken from the main lens.
    mass = dataclasses.replace(mass, theta_e=ring - mean_radial_deflection(added, ring))
    row = {
        "class_name": class_name,
        "einstein_radius": ring,
        **_columns("mass", mass),
        **_columns("shear", shear),
        **_columns("source", source),
        **_columns("lens", lens),
        "substructure": ";".join(_text(one) for one in added),
    }
    deflectors = (mass, shear, *added) if lensed else ()
    return LensSystem(class_name, deflectors, source, lens, row)


def _substructure(
    class_name: str, ring: float, parameters: LensingParameters, rng: np.random.Generator
) -> tuple[Ellipsoid | Line, ...]:
    """The masses that make the class."""

    def somewhere(bounds: Range) -> tuple[float, float]:
        radius, angle = between(rng, bounds) * ring, between(rng, (0, 2 * math.pi))
        return radius * math.cos(angle), radius * math.sin(angle)

    if class_name == "subhalo":
        haloes = []
        for _ in range(whole_between(rng, parameters.subhaloes)):
            theta_e = between(rng, parameters.subhalo_radius)
            x, y = somewhere((0.75, 1.25))
            haloes.append(Ellipsoid(theta_e, x=x, y=y))
        return tuple(haloes)
    if class_name == "vortex":
        theta_e = math.sqrt(between(rng, parameters.vortex_mass)) * ring
        length = between(rng, parameters.vortex_length) * ring
        x, y = somewhere((0.3, 1.0))
        return (Line(theta_e, length, between(rng, (0, math.pi)), x, y),)
    return ()


def _columns(prefix: str, part: Ellipsoid | Shear | Galaxy) -> SampleRow:
    return {f"{prefix}_{name}": value for name, value in dataclasses.asdict(part).items()}


def _text(part: Ellipsoid | Line) -> str:
    """A mass in one cell of the table."""
    values = dataclasses.asdict(part)
    return f"{type(part).__name__.lower()} " + " ".join(f"{k}={v!r}" for k, v in values.items())
