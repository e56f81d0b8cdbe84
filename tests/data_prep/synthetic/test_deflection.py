import math

import numpy as np
import pytest

from data_prep.synthetic.lens_system import (
    Deflector,
    Ellipsoid,
    Line,
    Shear,
    mean_radial_deflection,
    total_deflection,
)

# No grid point lies on the x axis, the y axis or a mass.
X, Y = np.meshgrid(np.linspace(-2.5, 2.5, 41) + 0.013, np.linspace(-2.5, 2.5, 41) + 0.017)

MASSES: dict[str, Deflector] = {
    "sphere": Ellipsoid(1.2, x=0.2, y=-0.1),
    "ellipsoid": Ellipsoid(1.2, 0.7, 0.6, 0.2, -0.1),
    "flat ellipsoid": Ellipsoid(0.8, 0.3, 2.6),
    "shear": Shear(0.08, 0.7),
}


def divergence_and_curl(mass: Deflector) -> tuple[np.ndarray, np.ndarray]:
    h = 1e-5
    right, left = mass.deflection(X + h, Y), mass.deflection(X - h, Y)
    down, up = mass.deflection(X, Y + h), mass.deflection(X, Y - h)
    divergence = (right[0] - left[0] + down[1] - up[1]) / (2 * h)
    curl = (right[1] - left[1] - down[0] + up[0]) / (2 * h)
    return divergence, curl


def test_a_sphere_deflects_by_its_einstein_radius_everywhere_and_outwards() -> None:
    alpha_x, alpha_y = Ellipsoid(1.2, x=0.2, y=-0.1).deflection(X, Y)
    np.testing.assert_allclose(np.hypot(alpha_x, alpha_y), 1.2, rtol=1e-7)
    distance = np.hypot(X - 0.2, Y + 0.1)
    np.testing.assert_allclose(alpha_x, 1.2 * (X - 0.2) / distance, rtol=1e-7)


@pytest.mark.parametrize("ratio", [1 - 1e-9, 1 - 1e-6])
def test_an_almost_round_ellipsoid_deflects_like_a_sphere(ratio: float) -> None:
    round_one = Ellipsoid(1.0).deflection(X, Y)
    almost = Ellipsoid(1.0, ratio, 0.4).deflection(X, Y)
    np.testing.assert_allclose(almost, round_one, atol=2e-6)


def test_the_divergence_of_an_ellipsoids_deflection_is_twice_its_density() -> None:
    mass = Ellipsoid(1.2, 0.7, 0.6, 0.2, -0.1)
    along = math.cos(0.6) * (X - 0.2) + math.sin(0.6) * (Y + 0.1)
    across = math.cos(0.6) * (Y + 0.1) - math.sin(0.6) * (X - 0.2)
    kappa = 1.2 / 2 / np.sqrt(0.7 * along**2 + across**2 / 0.7)
    divergence, curl = divergence_and_curl(mass)
    np.testing.assert_allclose(divergence, 2 * kappa, rtol=1e-5)
    np.testing.assert_allclose(curl, 0, atol=1e-5)


def test_shear_has_no_density_and_stretches_along_its_direction() -> None:
    divergence, curl = divergence_and_curl(Shear(0.08, 0.7))
    np.testing.assert_allclose(divergence, 0, atol=1e-9)
    np.testing.assert_allclose(curl, 0, atol=1e-9)
    along = Shear(0.08, 0.7).deflection(np.array([math.cos(0.7)]), np.array([math.sin(0.7)]))
    np.testing.assert_allclose(np.ravel(along), 0.08 * np.array([math.cos(0.7), math.sin(0.7)]))


def test_a_line_deflects_like_the_points_it_is_made_of() -> None:
    line = Line(0.3, 1.4, 0.5, 0.3, 0.2)
    count = 4000
    alpha_x, alpha_y = np.zeros_like(X), np.zeros_like(Y)
    for step in (np.arange(count) + 0.5) / count - 0.5:
        dx = X - (0.3 + step * 1.4 * math.cos(0.5))
        dy = Y - (0.2 + step * 1.4 * math.sin(0.5))
        alpha_x += 0.3**2 / count * dx / (dx**2 + dy**2)
        alpha_y += 0.3**2 / count * dy / (dx**2 + dy**2)
    found = line.deflection(X, Y)
    # Close to the line the points show as points.
    along = math.cos(0.5) * (X - 0.3) + math.sin(0.5) * (Y - 0.2)
    across = math.cos(0.5) * (Y - 0.2) - math.sin(0.5) * (X - 0.3)
    away = np.hypot(np.maximum(np.abs(along) - 0.7, 0), across) > 0.02
    assert away.sum() > 1600
    np.testing.assert_allclose(found[0][away], alpha_x[away], atol=1e-5)
    np.testing.assert_allclose(found[1][away], alpha_y[away], atol=1e-5)


def test_the_deflection_jumps_across_a_line_by_its_density() -> None:
    line = Line(0.3, 1.4)
    above = line.deflection(np.array([0.1]), np.array([1e-9]))[1]
    below = line.deflection(np.array([0.1]), np.array([-1e-9]))[1]
    assert float((above - below)[0]) == pytest.approx(2 * math.pi * 0.3**2 / 1.4)


@pytest.mark.parametrize(
    ("mass", "expected"),
    [
        (Ellipsoid(1.2), 1.2),
        (Line(0.3, 0.8, 0.4, 0.1, 0.1), 0.3**2 / 2),
        (Line(0.3, 0.8, 0.4, 5.0, 0.1), 0.0),
        (Shear(0.1, 0.3), 0.0),
    ],
)
def test_the_mean_deflection_on_a_circle_is_the_mass_inside_over_its_radius(
    mass: Deflector, expected: float
) -> None:
    assert mean_radial_deflection((mass,), 2.0) == pytest.approx(expected, abs=1e-9)


def test_deflections_add_up() -> None:
    both = total_deflection((MASSES["ellipsoid"], MASSES["shear"]), X, Y)
    parts = [MASSES[name].deflection(X, Y) for name in ("ellipsoid", "shear")]
    np.testing.assert_allclose(both, np.add(*parts))
    np.testing.assert_array_equal(total_deflection((), X, Y), np.zeros((2, *X.shape)))


@pytest.mark.parametrize("name", list(MASSES))
def test_deflections_are_those_of_lenstronomy(name: str) -> None:
    pytest.importorskip("lenstronomy", reason="lenstronomy (extra 'lensing') is not installed")
    from data_prep.synthetic.lenstronomy_engine import deflection

    found, expected = MASSES[name].deflection(X, Y), deflection((MASSES[name],), X, Y)
    np.testing.assert_allclose(found, expected, atol=1e-7)
