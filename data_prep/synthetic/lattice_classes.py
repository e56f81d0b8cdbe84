"""The thirteen crystal classes of the synthetic STEM set, each as a pattern in the plane.

A scanning transmission electron micrograph shows a crystal in projection: columns of atoms,
brighter where the atoms are heavier. The classes carry the names of the thirteen-class set by
A. Baghizadeh (Synthetic-Microscopy-Images), whose author notes that some of his classes
coincide. Here every name stands for one projected pattern, and the ranges of the cells' ratios
and angles are kept apart, so that no two classes share an image, whatever the rotation, mirror
image or scale. A stretch changes the class: do not change the aspect of these images.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LatticeSite:
    """An atom column of the unit cell.

    Attributes:
        x: position along the cell vector a, a fraction in [0, 1).
        y: position along the cell vector b, a fraction in [0, 1).
        species: 0 = the bright sublattice A, 1 = the dimmer sublattice B.
    """

    x: float
    y: float
    species: int = 0


@dataclass(frozen=True)
class LatticeClass:
    """A projected pattern: the shape of its unit cell and the atom columns in it.

    Attributes:
        name: the class, which is also its folder.
        ratio: range of |b| / |a|.
        angle: range of the angle between a and b, in degrees.
        sites: the columns of one cell.
        description: the projection in words.
    """

    name: str
    ratio: tuple[float, float]
    angle: tuple[float, float]
    sites: tuple[LatticeSite, ...]
    description: str

    @property
    def num_species(self) -> int:
        """1 or 2 sublattices."""
        return 1 + max(site.species for site in self.sites)

    def cell(self, ratio: float, angle: float, spacing: float) -> np.ndarray:
        """The unit cell at a given density of columns.

        Args:
            ratio: |b| / |a|.
            angle: angle between a and b, in degrees.
            spacing: root of the area per column, in pixels; the same for all classes, so that
                the number of columns in an image tells nothing about its class.

        Returns:
            float64 [2, 2]: the rows are a (along x) and b, in pixels as (x, y).
        """
        gamma = math.radians(angle)
        a = spacing * math.sqrt(len(self.sites) / (ratio * math.sin(gamma)))
        return np.array([[a, 0.0], [a * ratio * math.cos(gamma), a * ratio * math.sin(gamma)]])


_CORNER = LatticeSite(0, 0)
_CENTER = LatticeSite(0.5, 0.5)
_EDGE_A = LatticeSite(0.5, 0)
_EDGE_B = LatticeSite(0, 0.5)
_SQUARE = (1.0, 1.0)
_RIGHT = (90.0, 90.0)
_HEXAGONAL = (120.0, 120.0)
_SHORT = (1.25, 1.45)

_ALL = (
    LatticeClass(
        "cubic_bcc",
        _SQUARE,
        _RIGHT,
        (_CORNER, _CENTER),
        "body-centred cubic along [001]: a centred square, one element",
    ),
    LatticeClass(
        "cubic_bcc_2atom",
        _SQUARE,
        _RIGHT,
        (_CORNER, LatticeSite(0.5, 0.5, 1)),
        "caesium chloride along [001]: a square of A with B in its centre",
    ),
    LatticeClass(
        "hexagon",
        _SQUARE,
        _HEXAGONAL,
        (LatticeSite(1 / 3, 2 / 3), LatticeSite(2 / 3, 1 / 3)),
        "graphene along [0001]: a honeycomb, one element",
    ),
    LatticeClass(
        "hexagon_2atom",
        _SQUARE,
        _HEXAGONAL,
        (LatticeSite(1 / 3, 2 / 3), LatticeSite(2 / 3, 1 / 3, 1)),
        "boron nitride along [0001]: a honeycomb of A and B in turn",
    ),
    LatticeClass(
        "ortho_body_centered",
        _SHORT,
        _RIGHT,
        (_CORNER, _CENTER),
        "body-centred orthorhombic along [001]: a short centred rectangle",
    ),
    LatticeClass(
        "ortho_face_centered",
        _SHORT,
        _RIGHT,
        (_CORNER, _CENTER, _EDGE_A, _EDGE_B),
        "face-centred orthorhombic along [001]: rows and columns of a short rectangle",
    ),
    LatticeClass(
        "tetragonal_body_center",
        (2.0, 2.4),
        _RIGHT,
        (_CORNER, _CENTER),
        "body-centred tetragonal along [100]: a long centred rectangle",
    ),
    LatticeClass(
        "tetragonal_c",
        (0.9, 1.1),
        _RIGHT,
        (_CORNER, _EDGE_A),
        "base-centred tetragonal along [100]: rows and columns of a long rectangle (1.8 to 2.2)",
    ),
    LatticeClass(
        "tetragonal_face",
        _SHORT,
        _RIGHT,
        (_CORNER, _EDGE_A, _EDGE_B),
        "face-centred tetragonal, centre column missing: corners and middles of the edges",
    ),
    LatticeClass(
        "tetragonal_face_bcc",
        (1.35, 1.5),
        _RIGHT,
        (_CORNER, LatticeSite(0, 0.25), _CENTER, LatticeSite(0.5, 0.75)),
        "diamond-like along [110]: a centred rectangle of dumb-bells, one element",
    ),
    LatticeClass(
        "tetragonal_face_bcc_2atom",
        (1.35, 1.5),
        _RIGHT,
        (_CORNER, LatticeSite(0, 0.25, 1), _CENTER, LatticeSite(0.5, 0.75, 1)),
        "zinc-blende-like along [110]: a centred rectangle of dumb-bells of A and B",
    ),
    LatticeClass(
        "tetragonal_reg_2atom",
        _SHORT,
        _RIGHT,
        (_CORNER, LatticeSite(0.5, 0.5, 1)),
        "tetragonal along [100], two elements: a short rectangle of A with B in its centre",
    ),
    LatticeClass(
        "triclinic_rhomboh",
        (1.3, 1.5),
        (77.0, 81.0),
        (_CORNER,),
        "triclinic: an oblique cell, each row shifted by about a quarter",
    ),
)

LATTICE_CLASSES: dict[str, LatticeClass] = {lattice.name: lattice for lattice in _ALL}
