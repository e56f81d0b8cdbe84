import math

import numpy as np
import pytest

from data_prep.synthetic.rheed import (
    RHEED_CLASSES,
    RheedParameters,
    draw_pattern,
    render,
    rheed_sample,
)
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
from data_prep.synthetic.sample import PNG16, Request, image_generator

GRAZING = math.radians(2.5)
K = wave_number(15)


def screen(spread: float = 8e-4, half: float = 0.15, points: int = 301) -> Screen:
    u, v = np.meshgrid(np.linspace(-half, half, points), np.linspace(0.001, 2 * half, points))
    return make_screen(u, v, K, GRAZING, spread)


def directions(in_plane: np.ndarray) -> np.ndarray:
    """Where rods at the given wave vectors cut the Ewald sphere: (u, v), NaN if nowhere."""
    out = np.array([K * math.cos(GRAZING), 0.0]) + in_plane
    vertical2 = K**2 - (out**2).sum(axis=1)
    vertical = np.sqrt(np.where(vertical2 > 0, vertical2, np.nan))
    return np.stack([out[:, 1] / out[:, 0], vertical / out[:, 0]], axis=1)


def value_at(image: np.ndarray, seen: Screen, u: float, v: float) -> float:
    row, column = np.abs(seen.v[:, 0] - v).argmin(), np.abs(seen.u[0] - u).argmin()
    return float(image[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3].max())


@pytest.mark.parametrize(("kilovolts", "wavelength"), [(20, 0.08588), (100, 0.03701)])
def test_electrons_have_the_tabulated_wavelengths(kilovolts: float, wavelength: float) -> None:
    assert 2 * math.pi / wave_number(kilovolts) == pytest.approx(wavelength, rel=1e-3)


def test_every_point_of_the_screen_lies_on_the_ewald_sphere() -> None:
    seen = screen()
    into = K * np.array([math.cos(GRAZING), 0, -math.sin(GRAZING)])
    np.testing.assert_allclose(np.linalg.norm(seen.q + into[:, None, None], axis=0), K)
    specular = make_screen(np.array([[0.0]]), np.array([[math.tan(GRAZING)]]), K, GRAZING, 1e-4)
    np.testing.assert_allclose(specular.q[:, 0, 0], [0, 0, 2 * K * math.sin(GRAZING)], atol=1e-9)


@pytest.mark.parametrize(
    ("name", "area"),
    [("1x1", 1), ("2x2", 4), ("root3", 3)],
)
def test_reconstructed_cells_have_the_area_and_length_of_their_names(
    name: str, area: float
) -> None:
    cell = hexagonal_cell(3.84, 0.2, name)
    unit = 3.84**2 * math.sqrt(3) / 2
    assert abs(np.linalg.det(cell)) == pytest.approx(area * unit)
    np.testing.assert_allclose(np.linalg.norm(cell, axis=1), 3.84 * math.sqrt(area))
    turn = math.degrees(math.atan2(cell[0, 1], cell[0, 0])) - math.degrees(0.2)
    assert turn == pytest.approx(30 if name == "root3" else 0)


@pytest.mark.parametrize("name", ["1x1", "2x2", "root3"])
@pytest.mark.parametrize("azimuth", [0.0, math.pi / 6])
def test_rods_show_where_they_cut_the_sphere_and_nowhere_else(name: str, azimuth: float) -> None:
    seen = screen()
    cell, supercell = hexagonal_cell(3.84, azimuth), hexagonal_cell(3.84, azimuth, name)
    image = rods(seen, cell, supercell, 60.0, 0.3)
    numbers = np.stack(np.meshgrid(*[np.arange(-12, 13)] * 2), axis=-1).reshape(-1, 2)
    spots = directions(numbers @ (2 * np.pi * np.linalg.inv(supercell).T))
    on_screen = (np.abs(spots[:, 0]) < 0.145) & (spots[:, 1] > 0.01) & (spots[:, 1] < 0.29)
    whole = (cell @ np.linalg.inv(supercell) @ numbers.T % 1).round(6) % 1
    heights = np.where((whole == 0).all(axis=0), 1.0, 0.3)
    assert on_screen.sum() >= 4
    for (u, v), height in zip(spots[on_screen], heights[on_screen], strict=True):
        assert value_at(image, seen, u, v) > 0.3 * height
        assert value_at(image, seen, u, v) <= height + 1e-9
    far = seen.v > 0.06  # closer to the surface, rods that just miss the sphere glow too
    for u, v in spots[np.isfinite(spots[:, 1])]:
        far &= (np.abs(seen.u - u) > 0.006) | (np.abs(seen.v - v) > 0.05)
    assert far.any()
    assert image[far].max() < 0.02


def test_short_terraces_make_long_streaks() -> None:
    cell = hexagonal_cell(3.84, 0.0)
    heights = []
    for coherence in (8.0, 80.0):
        image = rods(screen(), cell, cell, coherence, 0.0)
        heights.append((image[:, 150] > 0.5).sum())  # along the (0, 0) rod
    assert heights[0] > 5 * heights[1]


def test_rings_have_the_radii_of_the_allowed_reflections_about_the_direct_beam() -> None:
    seen = screen(half=0.1, points=401)
    image = powder_rings(seen, 4.05, 60.0)
    into = np.array([math.cos(GRAZING), 0.0, -math.sin(GRAZING)])
    out = np.stack([np.ones_like(seen.u), seen.u, seen.v])
    angle = np.arccos(np.tensordot(into, out / np.linalg.norm(out, axis=0), axes=1))
    for squares in (8, 11, 12, 16):
        bragg = 2 * math.asin(math.sqrt(squares) / (2 * 4.05) * 2 * math.pi / K)
        assert image[np.abs(angle - bragg) < 2e-4].min() > 0.3
    forbidden = 2 * math.asin(math.sqrt(9.5) / (2 * 4.05) * 2 * math.pi / K)
    assert image[np.abs(angle - forbidden) < 2e-4].max() < 0.01


def test_islands_show_the_reflections_of_a_face_centerd_crystal() -> None:
    cell = fcc_cell(5.43, 0.0)
    assert abs(np.linalg.det(cell)) == pytest.approx(5.43**3 / 4)
    image = transmission_spots(screen(), cell, 40.0, 3.0)
    seen = screen()
    reciprocal = 2 * np.pi * np.linalg.inv(cell).T
    # (222), straight out of the surface: q = (0, 0, 4 pi sqrt 3 / a); (111) is in the shadow.
    straight = 4 * math.pi * math.sqrt(3) / 5.43
    orders = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3), axis=-1).reshape(-1, 3) @ reciprocal
    assert np.abs(orders - [0, 0, straight]).sum(axis=1).min() < 1e-9
    v = straight / K - math.tan(GRAZING)
    assert value_at(image, seen, 0.0, v) > 0.8
    assert value_at(image, seen, 0.0, v + 0.25 * straight / K) < 0.01


def test_kikuchi_lines_meet_the_bragg_condition() -> None:
    seen = screen()
    cell = fcc_cell(5.43, 0.0)
    lines = kikuchi_lines(seen, cell, GRAZING, 1e-3)
    # Of (111): out . G = |G|^2 / 2, a horizontal line at half the height of its spot.
    height = math.pi * math.sqrt(3) / 5.43 / K
    row = np.abs(seen.v[:, 0] - height).argmin()
    assert lines[row].mean() > 5 * np.median(lines)


@pytest.mark.parametrize("class_name", list(RHEED_CLASSES))
def test_images_are_dark_with_few_bright_features_below_the_shadow_edge(class_name: str) -> None:
    parameters = RheedParameters(exposure=(1.0, 1.0))
    for index in range(3):
        rng = image_generator(1, class_name, index)
        pattern = draw_pattern(class_name, parameters, rng)
        image = render(pattern, 96, 96, rng)
        edge = int(pattern.edge * 96)
        assert np.median(image) < 0.1
        assert image[edge:].max() > 5 * np.median(image[edge:])
        assert (image > 0.5 * image.max()).mean() < 0.1
        beam = np.abs(np.arange(96) - 96 * (0.5 + pattern.shift)) < 8  # the direct beam
        assert image[: max(edge - 4, 1), ~beam].max() < 0.02


def test_sixteen_bits_hold_what_eight_bits_round() -> None:
    parameters = RheedParameters()
    (fine,) = rheed_sample("2x2", 0, Request(0, 64, 80, parameters, PNG16)).files.values()
    (coarse,) = rheed_sample("2x2", 0, Request(0, 64, 80, parameters)).files.values()
    assert (fine.dtype, coarse.dtype, fine.shape) == (np.uint16, np.uint8, (64, 80))
    np.testing.assert_allclose(fine / 257, coarse, atol=0.51)
    assert len(np.unique(fine)) > 3 * len(np.unique(coarse))
