"""Synthetic STEM images of crystal lattices: seeded, labelled, with NumPy alone.

An image is a sum of Gaussian atom columns on one or two sublattices (`lattice_classes`), with
thermal jitter, a displaced second sublattice, rows shifted by an unsteady scan and detector
noise.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from data_prep.errors import UserError
from data_prep.settings import setting
from data_prep.synthetic.lattice_classes import LATTICE_CLASSES, LatticeClass
from data_prep.synthetic.sample import Parameters, Range, between, image_generator

_STAMP_SIGMAS = 4.0  # a Gaussian is 3e-4 of its peak there, less than one grey level
_PERCENTILES = (0.5, 99.5)


_CRYSTAL = "Crystals"
_MICROSCOPE = "Microscope"


@dataclass(frozen=True)
class LatticeParameters(Parameters):
    """Settings of lattice images, each with its meaning and limits beside the default.

    The columns of sublattice B are dimmed by `contrast` and shifted by `displacement`, in
    two-element classes only. Orientations are limited, since crystals are usually turned until an
    axis lies about along the scan.
    """

    TITLE: ClassVar[str] = "--kind=lattice"

    spacing: Range = setting(
        (0.15, 0.21),
        "Root of the area per atom column, as a fraction of the side.",
        topic=_CRYSTAL,
        low=0.01,
        high=1,
    )
    atom_size: Range = setting(
        (0.18, 0.26),
        "Sigma of a column's Gaussian, as a fraction of the spacing.",
        topic=_CRYSTAL,
        low=0.02,
        high=1,
    )
    contrast: Range = setting(
        (0.3, 0.6),
        "Brightness of the second element relative to the first.",
        topic=_CRYSTAL,
        low=0,
        high=1,
    )
    displacement: float = setting(
        0.05,
        "Largest shift of the second sublattice in x and y, as a fraction of the spacing.",
        topic=_CRYSTAL,
        low=0,
        high=0.5,
    )
    jitter: Range = setting(
        (0.0, 0.05),
        "Sigma of each column's own shift, as a fraction of the spacing.",
        topic=_CRYSTAL,
        low=0,
        high=0.5,
    )
    rotation: float = setting(
        15.0, "Orientations are drawn from +- this, degrees.", topic=_CRYSTAL, low=0, high=180
    )
    scan_distortion: Range = setting(
        (0.5, 1.5), "Sigma of the shift of each scan row, in pixels.", topic=_MICROSCOPE, low=0
    )
    noise: Range = setting(
        (0.1, 0.4),
        "Sigma of the noise, relative to a column of the first element.",
        topic=_MICROSCOPE,
        low=0,
    )


@dataclass(frozen=True)
class Crystal:
    """One drawn crystal: everything about an image but its random jitter and noise.

    Attributes:
        class_name: its class.
        ratio: |b| / |a| of its cell.
        angle: angle between a and b, in degrees.
        spacing: root of the area per column, in pixels.
        orientation: rotation of the cell, in degrees, from x towards y (y points down).
        offset_x: x of a cell's origin, in pixels from the image's centre.
        offset_y: y of it.
        atom_size: standard deviation of a column, in pixels.
        contrast: brightness of sublattice B relative to A (1 if there is no B).
        displacement_x: x of sublattice B's shift in pixels (0 if there is no B).
        displacement_y: y of it.
        jitter: standard deviation of the columns' own displacements, in pixels.
        scan_distortion: standard deviation of the rows' shifts, in pixels.
        noise: standard deviation of the noise, relative to a column of A.
    """

    class_name: str
    ratio: float
    angle: float
    spacing: float
    orientation: float
    offset_x: float
    offset_y: float
    atom_size: float
    contrast: float
    displacement_x: float
    displacement_y: float
    jitter: float
    scan_distortion: float
    noise: float

    @property
    def lattice(self) -> LatticeClass:
        """The crystal's class."""
        return LATTICE_CLASSES[self.class_name]

    def cell(self) -> np.ndarray:
        """The rotated unit cell: float64 [2, 2], rows a and b in pixels as (x, y)."""
        turn = math.radians(self.orientation)
        rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        return self.lattice.cell(self.ratio, self.angle, self.spacing) @ rotation

    def to_dict(self) -> dict[str, str | float]:
        """The crystal's parameters, for a table."""
        return dataclasses.asdict(self)


def draw_crystal(
    lattice: LatticeClass,
    image_size: int,
    parameters: LatticeParameters,
    rng: np.random.Generator,
) -> Crystal:
    """Draws a crystal of a class.

    Args:
        lattice: the class.
        image_size: side of the image, in pixels.
        parameters: what to draw from.
        rng: always advanced by the same number of draws, whatever the class.

    Returns:
        The crystal.
    """
    spacing = between(rng, parameters.spacing) * image_size
    largest_shift = parameters.displacement * spacing
    two = lattice.num_species == 2
    offset = rng.uniform(-0.5, 0.5, 2) * image_size
    contrast = between(rng, parameters.contrast)
    shift = rng.uniform(-largest_shift, largest_shift, 2)
    return Crystal(
        class_name=lattice.name,
        ratio=between(rng, lattice.ratio),
        angle=between(rng, lattice.angle),
        spacing=spacing,
        orientation=between(rng, (-parameters.rotation, parameters.rotation)),
        offset_x=float(offset[0]),
        offset_y=float(offset[1]),
        atom_size=between(rng, parameters.atom_size) * spacing,
        contrast=contrast if two else 1.0,
        displacement_x=float(shift[0]) if two else 0.0,
        displacement_y=float(shift[1]) if two else 0.0,
        jitter=between(rng, parameters.jitter) * spacing,
        scan_distortion=between(rng, parameters.scan_distortion),
        noise=between(rng, parameters.noise),
    )


def atom_columns(crystal: Crystal, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The ideal atom columns in and around an image.

    Args:
        crystal: the crystal.
        image_size: side of the image, in pixels.

    Returns:
        positions: float64 [n, 2], (x, y) in pixels, pixel centres at whole numbers; all columns
            that can be seen, those just outside included.
        species: int64 [n], 0 = A, 1 = B.
    """
    cell = crystal.cell()
    margin = _STAMP_SIGMAS * crystal.atom_size + 3 * crystal.scan_distortion + crystal.spacing
    half = image_size / 2 + margin
    center = (image_size - 1) / 2
    origin = np.array([crystal.offset_x, crystal.offset_y])
    # The corners of the padded image in units of the cell bound the cells that reach into it.
    corners = np.array([[-half, -half], [-half, half], [half, -half], [half, half]]) - origin
    units = corners @ np.linalg.inv(cell)
    low, high = np.floor(units.min(axis=0)).astype(int), np.ceil(units.max(axis=0)).astype(int)
    grid = np.stack(
        np.meshgrid(*(np.arange(lo, hi + 1) for lo, hi in zip(low, high, strict=True))), axis=-1
    ).reshape(-1, 1, 2)
    sites = crystal.lattice.sites
    basis = np.array([[site.x, site.y] for site in sites])
    kinds = np.array([site.species for site in sites])
    shifts = np.outer(kinds, [crystal.displacement_x, crystal.displacement_y])
    positions = ((grid + basis) @ cell + shifts + origin).reshape(-1, 2)
    species = np.tile(kinds, len(grid))
    seen = (np.abs(positions) <= half).all(axis=1)
    return positions[seen] + center, species[seen]


def render(crystal: Crystal, image_size: int, rng: np.random.Generator | None) -> np.ndarray:
    """The image of a crystal before the detector's grey levels.

    Args:
        crystal: the crystal.
        image_size: side of the image, in pixels.
        rng: draws jitter, scan distortion and noise; None = a perfect image without any.

    Returns:
        float64 [image_size, image_size], a lone column of A having height 1.
    """
    positions, species = atom_columns(crystal, image_size)
    heights = np.where(species == 1, crystal.contrast, 1.0)
    row_shifts = np.zeros(image_size)
    if rng is not None:
        positions = positions + rng.normal(0, crystal.jitter, positions.shape)
        row_shifts = rng.normal(0, crystal.scan_distortion, image_size)
    image = _sum_of_gaussians(positions, heights, crystal.atom_size, row_shifts)
    if rng is not None:
        image += rng.normal(0, crystal.noise, image.shape)
    return image


def _sum_of_gaussians(
    positions: np.ndarray, heights: np.ndarray, sigma: float, row_shifts: np.ndarray
) -> np.ndarray:
    """Adds up Gaussian stamps, each row y sampled at x - row_shifts[y].

    Only the pixels near a column are touched; the rows of a stamp are shifted with the scan.
    """
    size = len(row_shifts)
    reach = math.ceil(_STAMP_SIGMAS * sigma)
    window = np.arange(-reach, reach + 1)
    rows = np.rint(positions[:, 1]).astype(int)[:, None] + window  # [n, w]
    inside = (rows >= 0) & (rows < size)
    shifts = row_shifts[np.clip(rows, 0, size - 1)]
    vertical = np.exp(-((rows - positions[:, 1:2]) ** 2) / (2 * sigma**2)) * heights[:, None]
    centers = positions[:, :1] + shifts  # [n, w]: where the column appears in each row
    columns = np.rint(centers).astype(int)[:, :, None] + window  # [n, w, w]
    values = np.exp(-((columns - centers[:, :, None]) ** 2) / (2 * sigma**2))
    values *= vertical[:, :, None]
    inside = inside[:, :, None] & (columns >= 0) & (columns < size)
    flat = (rows[:, :, None] * size + columns)[inside]
    return np.bincount(flat, values[inside], minlength=size * size).reshape(size, size)


def to_gray(image: np.ndarray) -> np.ndarray:
    """Grey levels as a detector with automatic brightness and contrast would give.

    Args:
        image: float [H, W].

    Returns:
        uint8 [H, W]; the percentiles 0.5 and 99.5 become 0 and 255, the tails are clipped.
    """
    low, high = np.percentile(image, _PERCENTILES)
    scaled = (image - low) / max(high - low, 1e-12)
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def lattice_image(
    class_name: str,
    index: int,
    *,
    seed: int,
    image_size: int,
    parameters: LatticeParameters | None = None,
) -> tuple[np.ndarray, Crystal]:
    """One image of the set, the same whatever else is made.

    Args:
        class_name: one of `LATTICE_CLASSES`.
        index: which image of the class, from 0.
        seed: the set's seed, from 0.
        image_size: side in pixels.
        parameters: what varies; the documented defaults if None.

    Returns:
        uint8 [image_size, image_size] and the crystal drawn.

    Raises:
        UserError: an unknown class.
    """
    if class_name not in LATTICE_CLASSES:
        raise UserError(f"no lattice class '{class_name}'; there are {', '.join(LATTICE_CLASSES)}")
    rng = image_generator(seed, class_name, index)
    crystal = draw_crystal(
        LATTICE_CLASSES[class_name], image_size, parameters or LatticeParameters(), rng
    )
    return to_gray(render(crystal, image_size, rng)), crystal
