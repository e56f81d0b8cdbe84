import csv
import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.synthetic.lens_system import (
    LENSING_CLASSES,
    Ellipsoid,
    Galaxy,
    LensingParameters,
    LensSystem,
    draw_system,
    mean_radial_deflection,
)
from data_prep.synthetic.lensing import lensing_sample, render, stretch
from data_prep.synthetic.sample import NPY, Request, image_generator
from data_prep.synthetic.write import write_set

DARK_LENS = Galaxy(0.0, 0.5, 1.0, 1.0, 0.0)


def drawn(class_name: str, index: int = 0, **settings: object) -> LensSystem:
    rng = image_generator(3, class_name, index)
    return draw_system(class_name, LensingParameters(**settings), rng)  # type: ignore[arg-type]


@pytest.mark.parametrize("radius", [0.8, 1.3])
def test_a_source_on_the_axis_is_seen_as_a_ring_of_the_einstein_radius(radius: float) -> None:
    source = Galaxy(1.0, 0.1, 1.0, 1.0, 0.0)
    system = LensSystem("smooth", (Ellipsoid(radius),), source, DARK_LENS, {})
    image = render(system, 100, LensingParameters(field_of_view=4.0), psf_fwhm=0.01)
    axis = (np.arange(100) - 49.5) * 0.04
    distance = np.hypot(*np.meshgrid(axis, axis))
    bins = np.digitize(distance.ravel(), np.arange(0, 2, 0.04))
    profile = np.bincount(bins, image.ravel()) / np.maximum(np.bincount(bins), 1)
    assert (profile[: len(np.arange(0, 2, 0.04))].argmax() - 0.5) * 0.04 == pytest.approx(
        radius, abs=0.03
    )
    bright = np.abs(distance - radius) < 0.03
    assert image[bright].std() < 0.25 * image[bright].mean()
    assert image[distance < 0.3].max() < 0.1 * image[bright].mean()


def test_surface_brightness_is_conserved() -> None:
    source = Galaxy(1.0, 0.3, 0.5, 1.0, 0.0)
    lensed = LensSystem("smooth", (Ellipsoid(1.0),), source, DARK_LENS, {})
    plain = dataclasses.replace(lensed, deflectors=())
    settings = LensingParameters(field_of_view=4.0)
    peaks = [render(one, 200, settings, psf_fwhm=0.001).max() for one in (lensed, plain)]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.01)


@pytest.mark.parametrize("index", [1.0, 2.5, 4.0])
def test_half_of_a_galaxys_light_lies_inside_its_effective_radius(index: float) -> None:
    galaxy = Galaxy(0.7, 0.5, index, 0.6, 0.4, 0.2, -0.3)
    radii = np.exp(np.linspace(math.log(1e-6), math.log(400), 20001))
    # Along any ellipse the brightness is the same; its area grows as radius squared.
    along_x = galaxy.x + radii / math.sqrt(0.6) * math.cos(0.4)
    along_y = galaxy.y + radii / math.sqrt(0.6) * math.sin(0.4)
    light = galaxy.light(along_x, along_y)
    total = np.cumsum(light * radii * np.gradient(radii))
    assert np.interp(0.5, radii, total) / total[-1] == pytest.approx(0.5, abs=0.01)
    assert galaxy.light(along_x, along_y)[np.searchsorted(radii, 0.5)] == pytest.approx(
        0.7, rel=0.01
    )


@pytest.mark.parametrize("class_name", ["smooth", "subhalo", "vortex"])
def test_substructure_leaves_the_mass_inside_the_ring_as_it_is(class_name: str) -> None:
    for index in range(10):
        system = drawn(class_name, index, shear=(0.0, 0.0), mass_axis_ratio=(1.0, 1.0))
        ring = float(system.row["einstein_radius"])
        assert mean_radial_deflection(system.deflectors, ring) == pytest.approx(ring, rel=1e-6)
        assert len(system.deflectors) == {"smooth": 2, "vortex": 3}.get(
            class_name, len(system.deflectors)
        )


def test_the_classes_differ_in_their_masses() -> None:
    assert drawn("no_lens").deflectors == ()
    assert drawn("smooth").row["substructure"] == ""
    counts = {len(drawn("subhalo", index).deflectors) - 2 for index in range(40)}
    assert counts == set(range(4, 11))
    assert drawn("vortex").row["substructure"].startswith("line theta_e=")


def test_background_noise_has_the_drawn_strength_whatever_the_pixels() -> None:
    settings = LensingParameters(background=(0.2, 0.2), field_of_view=5.12)
    for size, expected in ((64, 0.2), (128, 0.4)):
        sample = lensing_sample("no_lens", 0, Request(0, size, size, settings, NPY))
        (pixels,) = sample.files.values()
        corner = pixels[: size // 8, : size // 8]
        assert corner.std() == pytest.approx(expected, rel=0.25)


def test_the_stretch_is_arcsinh_between_the_percentiles() -> None:
    image = np.random.default_rng(0).exponential(3.0, (50, 50))
    shown = stretch(image, 0.5)
    curved = np.arcsinh(image / 0.5)
    low, high = np.percentile(curved, (1, 99.7))
    inside = (curved > low) & (curved < high)
    np.testing.assert_allclose(shown[inside], ((curved - low) / (high - low))[inside])
    assert shown.min() == 0
    assert shown.max() == 1


def test_npy_holds_brightness_and_the_borders_of_nan_that_the_table_names(tmp_path: Path) -> None:
    settings = LensingParameters(nan_border=(0.05, 0.2))
    write_set(
        "lensing",
        tmp_path / "set",
        images_per_class=2,
        seed=1,
        image_size=(40, 40),
        parameters=settings,
        file_format=NPY,
    )
    with (tmp_path / "set" / "parameters.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        pixels = np.load(tmp_path / "set" / row["path"])
        assert (pixels.dtype, pixels.shape) == (np.float32, (40, 40))
        top, bottom, left, right = (
            int(row[f"nan_{side}"]) for side in ("top", "bottom", "left", "right")
        )
        assert min(top, bottom, left, right) >= 2
        expected = np.ones((40, 40), bool)
        expected[top : 40 - bottom, left : 40 - right] = False
        np.testing.assert_array_equal(np.isnan(pixels), expected)
        assert np.nanmax(pixels) > 0.5


def test_a_png_with_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add --format=npy"):
        write_set(
            "lensing",
            tmp_path / "set",
            images_per_class=1,
            seed=0,
            parameters=LensingParameters(nan_border=(0.1, 0.1)),
        )


def test_a_missing_engine_is_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lenstronomy", None)
    with pytest.raises(UserError, match=r"pip install 'simclr-tf\[lensing\]'"):
        write_set(
            "lensing",
            tmp_path / "set",
            images_per_class=1,
            seed=0,
            parameters=LensingParameters(engine="lenstronomy"),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("class_name", list(LENSING_CLASSES))
def test_both_engines_draw_the_same_image(class_name: str) -> None:
    pytest.importorskip("lenstronomy", reason="lenstronomy (extra 'lensing') is not installed")
    system = drawn(class_name)
    own, theirs = (
        render(system, 64, LensingParameters(engine=engine), psf_fwhm=0.12)
        for engine in ("numpy", "lenstronomy")
    )
    # A vortex is a row of points there.
    tolerance = 0.02 if class_name == "vortex" else 1e-6
    np.testing.assert_allclose(own, theirs, atol=tolerance)
