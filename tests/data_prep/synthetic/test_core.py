import dataclasses
import math

import numpy as np
import pytest

from data_prep.synthetic.core import (
    CORE_CLASSES,
    CoreParameters,
    CorePiece,
    breccia,
    draw_piece,
    fracture,
    layers,
    render,
    self_affine_line,
    specks,
)
from data_prep.synthetic.sample import image_generator

Y, X = np.meshgrid(np.arange(160) / 128, np.arange(128) / 128, indexing="ij")


def piece(class_name: str, index: int = 0, **changes: float) -> CorePiece:
    drawn = draw_piece(class_name, CoreParameters(), image_generator(2, class_name, index))
    return dataclasses.replace(drawn, **changes)


@pytest.mark.parametrize("dip", [0.0, 0.5])
def test_flat_beds_have_one_tone_along_their_strike(dip: float) -> None:
    rng = np.random.default_rng(0)
    tones = layers(Y, X, dip=dip, thickness=0.1, waviness=0.0, rng=rng)
    depth = Y * math.cos(dip) + X * math.sin(dip)
    order = np.argsort(depth.ravel())
    changes = np.count_nonzero(np.diff(tones.ravel()[order]))
    assert changes == len(np.unique(tones)) - 1  # every bed is one interval of depth
    assert 4 <= changes <= 25


def test_beds_have_the_median_thickness() -> None:
    y, x = np.meshgrid(np.arange(40000) / 100, np.arange(2) / 100, indexing="ij")
    tones = layers(y, x, dip=0, thickness=0.5, waviness=0, rng=np.random.default_rng(1))[:, 0]
    bounds = np.nonzero(np.diff(tones))[0] / 100
    assert np.median(np.diff(bounds)) == pytest.approx(0.5, rel=0.12)


def test_fracture_profiles_are_self_affine() -> None:
    # The mean squared height difference over a distance d grows as d^(2 hurst).
    lines = [self_affine_line(np.random.default_rng(seed), 2048) for seed in range(40)]
    growth = [
        np.mean([np.mean((line[lag:] - line[:-lag]) ** 2) for line in lines]) for lag in (8, 64)
    ]
    hurst = math.log(growth[1] / growth[0]) / (2 * math.log(8))
    assert hurst == pytest.approx(0.8, abs=0.1)


def test_a_fracture_crosses_the_image_with_its_width() -> None:
    covered = []
    for seed in range(30):
        inside = fracture(
            Y,
            X,
            angle=0.2,
            offset=(0.6, 0.5),
            roughness=0.01,
            aperture=0.02,
            rng=np.random.default_rng(seed),
        )
        assert (inside.max(axis=0) > 0.5).mean() > 0.95
        covered.append(inside.mean(axis=0).mean() * 160 / 128)
    # Twice the half width, times the mean of a lognormal factor, over the slope's cosine.
    assert np.mean(covered) == pytest.approx(0.04 * math.exp(0.125) / math.cos(0.2), rel=0.15)


def test_more_matrix_leaves_less_of_the_clasts_and_each_has_one_tone() -> None:
    shares = []
    for matrix in (0.1, 0.3, 0.6):
        inside, tone, lamination = breccia(
            Y, X, clast=0.15, matrix=matrix, rng=np.random.default_rng(3)
        )
        shares.append(inside.mean())
        assert 10 < len(np.unique(tone)) < 200
        assert np.abs(lamination).max() <= 1
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.5


def test_specks_cover_about_their_share() -> None:
    found = specks(np.random.default_rng(0), (200, 200), 0.004)
    assert 0.004 < (np.abs(found) > 0.3).mean() < 0.04
    assert found.min() == pytest.approx(-1, abs=0.2)


@pytest.mark.parametrize("class_name", list(CORE_CLASSES))
def test_only_its_own_class_has_a_structure(class_name: str) -> None:
    for index in range(20):
        drawn = piece(class_name, index)
        assert (drawn.cracks > 0) == (class_name == "crack")
        assert (drawn.clast > 0) == (class_name == "brecciated")
        assert (drawn.layer_contrast >= 0.04) == (class_name == "layered")


def test_open_fractures_are_dark_and_filled_ones_pale() -> None:
    plain = {"margin": 0.0, "light": 0.0, "curvature": 0.0, "red": 0.5, "green": 0.5, "blue": 0.5}
    for filled in (0, 1):
        drawn = piece("crack", filled=filled, aperture=0.02, cracks=2, **plain)
        image = render(drawn, 128, 128, np.random.default_rng(0)).mean(axis=2)
        dark, pale = (image < 0.2).mean(), (image > 0.78).mean()
        assert (pale if filled else dark) > 0.02
        assert (dark if filled else pale) < 0.005


def test_the_rock_has_the_drawn_color_and_the_tray_shows_at_the_drawn_side() -> None:
    color = {"red": 0.6, "green": 0.5, "blue": 0.4, "light": 0.0, "curvature": 0.0}
    drawn = piece("none", margin=0.1, **color)
    image = render(drawn, 100, 100, np.random.default_rng(0))
    np.testing.assert_allclose(image[:, 20:].mean(axis=(0, 1)), [0.6, 0.5, 0.4], atol=0.03)
    np.testing.assert_allclose(image[:, :6].mean(axis=(0, 1)), [0.55, 0.42, 0.25], atol=0.02)
    right = render(piece("none", margin=-0.1, **color), 100, 100, np.random.default_rng(0))
    np.testing.assert_allclose(right[:, -6:].mean(axis=(0, 1)), [0.55, 0.42, 0.25], atol=0.02)


def test_fractures_are_filled_only_where_the_filling_is_seen() -> None:
    pieces = [piece("crack", index) for index in range(200)]
    filled = [one for one in pieces if one.filled]
    assert 10 < len(filled) < 100
    assert max((one.red + one.green + one.blue) / 3 for one in filled) < 0.55
