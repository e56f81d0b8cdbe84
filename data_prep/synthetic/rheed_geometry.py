"""Kinematic geometry of reflection high-energy electron diffraction (RHEED).

Axes: x along the beam's projection on the surface, y across it, z out of the surface. A beam of
wave number k comes in at a grazing angle: k_in = k (cos, 0, -sin). A point of the screen stands
for a direction (1, u, v): u across, v up from the surface's plane, as tangents. The scattering
vector is q = k_out - k_in, so every point of the screen lies on the Ewald sphere. The intensity
scattered there depends on how close q is to the reciprocal lattice (Ichimiya & Cohen 2004,
"Reflection High-Energy Electron Diffraction", chapters 5 and 6):

* a flat surface has rods, q_parallel = G. They cut the sphere in spots on Laue circles; short
  terraces make the rods thick and, cut at a grazing angle, the spots long: streaks;
* a rough surface is shone through: its reciprocal lattice is three-dimensional, hence an array of
  spots;
* grains of all orientations make spheres |q| = |G|, hence rings around the direct beam.

Lengths are in angstroms, wave numbers in inverse angstroms (2 pi included). Refraction at the
surface and multiple scattering are left out.
"""

import math
from dataclasses import dataclass

import numpy as np

# Reflections of face-centred cubic crystals: h^2 + k^2 + l^2, and how many share it.
_FCC_SHELLS = ((3, 8), (4, 6), (8, 12), (11, 24), (12, 8), (16, 6), (19, 24), (20, 24), (24, 24))


def wave_number(kilovolts: float) -> float:
    """Relativistic wave number of electrons, in inverse angstroms.

    Args:
        kilovolts: the voltage that accelerated them.
    """
    volts = 1000 * kilovolts
    return 2 * math.pi * math.sqrt(volts * (1 + 0.978476e-6 * volts)) / 12.26426


@dataclass(frozen=True)
class Screen:
    """Scattering vectors of all points of a screen.

    Attributes:
        u: tangent of the angle across the beam: float64 [H, W].
        v: tangent of the angle above the surface; negative in its shadow.
        q: scattering vectors: float64 [3, H, W].
        k: wave number.
        spread: angular spread of the beam, in radians.
    """

    u: np.ndarray
    v: np.ndarray
    q: np.ndarray
    k: float
    spread: float

    def every(self, step: int) -> "Screen":
        """The same screen with fewer points."""
        thin = (slice(None, None, step), slice(None, None, step))
        return Screen(self.u[thin], self.v[thin], self.q[:, *thin], self.k, self.spread)


def make_screen(u: np.ndarray, v: np.ndarray, k: float, grazing: float, spread: float) -> Screen:
    """The screen at the given tangents; `grazing` and `spread` in radians."""
    length = np.sqrt(1 + u**2 + v**2)
    out = k / length * np.stack([np.ones_like(u), u, v])
    into = k * np.array([math.cos(grazing), 0.0, -math.sin(grazing)])
    return Screen(u, v, out - into[:, None, None], k, spread)


def hexagonal_cell(spacing: float, azimuth: float, reconstruction: str = "1x1") -> np.ndarray:
    """The surface cell in real space.

    Args:
        spacing: lattice constant of the unreconstructed surface.
        azimuth: angle of its first vector to the beam, in radians.
        reconstruction: `1x1`, `2x2` or `root3`, which is (root 3 x root 3) turned by 30 degrees.

    Returns:
        float64 [2, 2]: rows are the vectors, as (x, y).
    """
    angles = azimuth + np.array([0, math.pi / 3])
    cell = spacing * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    change = {"1x1": [[1, 0], [0, 1]], "2x2": [[2, 0], [0, 2]], "root3": [[1, 1], [-1, 2]]}
    return np.array(change[reconstruction]) @ cell


def rods(
    screen: Screen, cell: np.ndarray, supercell: np.ndarray, coherence: float, fraction: float
) -> np.ndarray:
    """Intensity of the rods of a surface.

    Args:
        screen: where.
        cell: of the unreconstructed surface, [2, 2].
        supercell: of the reconstruction, [2, 2].
        coherence: size of the terraces: rods have a Gaussian profile of sigma 1 / coherence.
        fraction: intensity of rods of fractional order relative to whole ones.

    Returns:
        float64 [H, W], 1 in the middle of a whole-order rod.
    """
    in_plane = screen.q[:2]
    orders = np.rint(np.tensordot(supercell, in_plane, axes=1) / (2 * np.pi))
    nearest = np.tensordot(2 * np.pi * np.linalg.inv(supercell), orders, axes=1)
    whole = np.tensordot(cell, nearest, axes=1) / (2 * np.pi)
    is_whole = (np.abs(whole - np.rint(whole)) < 1e-6).all(axis=0)
    along, across = in_plane - nearest
    # The beam's spread moves k_out in its own direction's plane: k across, only k v along.
    blur = screen.k * screen.spread
    along_sigma2 = coherence**-2 + (blur * screen.v) ** 2
    across_sigma2 = coherence**-2 + blur**2
    profile = np.exp(-(along**2) / (2 * along_sigma2) - across**2 / (2 * across_sigma2))
    return profile * np.where(is_whole, 1.0, fraction)


def fcc_cell(lattice_constant: float, azimuth: float) -> np.ndarray:
    """Primitive cell of a face-centred cubic crystal with (111) up.

    Args:
        lattice_constant: edge of the cube.
        azimuth: angle of a close-packed row, [1 -1 0], to the beam, in radians.

    Returns:
        float64 [3, 3]: rows are the vectors, as (x, y, z).
    """
    x = np.array([1, -1, 0]) / math.sqrt(2)
    z = np.array([1, 1, 1]) / math.sqrt(3)
    axes = np.stack([x, np.cross(z, x), z])
    primitive = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2 * lattice_constant
    c, s = math.cos(azimuth), math.sin(azimuth)
    return primitive @ axes.T @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def transmission_spots(
    screen: Screen, cell: np.ndarray, size: float, thickness: float
) -> np.ndarray:
    """Intensity of the spots of islands that are shone through.

    Args:
        screen: where.
        cell: of the crystal, [3, 3].
        size: of an island across the beam: spots have a Gaussian profile of sigma 1 / size.
        thickness: the same along the beam.

    Returns:
        float64 [H, W], 1 in the middle of a spot that lies on the Ewald sphere.
    """
    orders = np.rint(np.tensordot(cell, screen.q, axes=1) / (2 * np.pi))
    off = screen.q - np.tensordot(2 * np.pi * np.linalg.inv(cell), orders, axes=1)
    across2 = size**-2 + (screen.k * screen.spread) ** 2
    exponent = off[0] ** 2 * thickness**2 + (off[1] ** 2 + off[2] ** 2) / across2
    return np.exp(-exponent / 2)


def powder_rings(screen: Screen, lattice_constant: float, size: float) -> np.ndarray:
    """Intensity of the rings of face-centred cubic grains of all orientations.

    Args:
        screen: where.
        lattice_constant: edge of the cube.
        size: of a grain: rings have a Gaussian profile of sigma 1 / size.

    Returns:
        float64 [H, W]: multiplicity over circumference, the innermost ring being 1.
    """
    length = np.sqrt((screen.q**2).sum(axis=0))
    sigma2 = size**-2 + (screen.k * screen.spread) ** 2
    rings = np.zeros_like(length)
    first = _FCC_SHELLS[0][1] / math.sqrt(_FCC_SHELLS[0][0])
    for squares, multiplicity in _FCC_SHELLS:
        radius = 2 * math.pi * math.sqrt(squares) / lattice_constant
        height = multiplicity / math.sqrt(squares) / first
        rings += height * np.exp(-((length - radius) ** 2) / (2 * sigma2))
    return rings


def kikuchi_lines(screen: Screen, cell: np.ndarray, grazing: float, width: float) -> np.ndarray:
    """Bright lines where electrons of the diffuse background are reflected by bulk planes.

    Args:
        screen: where.
        cell: of the bulk crystal, [3, 3].
        grazing: angle of the beam, in radians.
        width: of a line, in radians.

    Returns:
        float64 [H, W]: 0 off the lines, 1 on one of them; crossing lines add up.
    """
    into = screen.k * np.array([math.cos(grazing), 0.0, -math.sin(grazing)])
    out = screen.q + into[:, None, None]
    reciprocal = 2 * np.pi * np.linalg.inv(cell).T
    lines = np.zeros_like(screen.u)
    shortest = np.linalg.norm(reciprocal, axis=1).min()
    for order in np.ndindex(5, 5, 5):
        plane = (np.array(order) - 2) @ reciprocal
        length = float(np.linalg.norm(plane))
        if plane[2] < 0.1 * length or not 0 < length < 2.5 * shortest:
            continue  # along the surface or into it, or a weak reflection
        miss = (np.tensordot(plane, out, axes=1) - length**2 / 2) / (length * screen.k)
        lines += np.exp(-(miss**2) / (2 * width**2))
    return lines
