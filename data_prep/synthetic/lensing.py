"""Synthetic images of strong gravitational lenses, with and without substructure.

Light of a source galaxy is traced back through a thin lens: what is seen at x comes from
beta = x - alpha(x) (`lens_system`). The lens is a singular isothermal ellipsoid in an outer shear.
The four classes, as in DeepLense (Alexander et al. 2020, ApJ 893, 15), differ in what is added:

* `no_lens`: no deflection, but a galaxy with an unrelated neighbour;
* `smooth`: the ellipsoid and the shear alone;
* `subhalo`: also singular isothermal spheres near the ring, the subhaloes of cold dark matter;
* `vortex`: also a straight line of mass, a vortex of superfluid dark matter.

The main lens is lightened by the mass added inside the ring, so that the size of the ring tells
nothing. Galaxies have Sersic profiles (Graham & Driver 2005, PASA 22, 118); a Gaussian point
spread function, photon noise and background noise follow. Lengths are in arcseconds, brightness
in units of the source's at its effective radius. PNG shows arcsinh(brightness / softening) from
percentile 1 to 99.7; NPY holds the brightness itself.
"""

import math

import numpy as np

from data_prep.errors import UserError
from data_prep.synthetic.lens_system import (
    LensingParameters,
    LensSystem,
    draw_system,
    total_deflection,
)
from data_prep.synthetic.noise import smooth
from data_prep.synthetic.sample import (
    NPY,
    Request,
    Sample,
    between,
    image_generator,
    single_image,
    to_levels,
)

_PERCENTILES = (1.0, 99.7)
_FWHM = 2 * math.sqrt(2 * math.log(2))  # full width at half maximum of a Gaussian, in sigmas
_PIXEL = 0.08  # arcseconds; the pixel for which `photons` and `background` are given
_FINE = 0.03  # arcseconds; rays lie at least as close


def render(
    system: LensSystem,
    size: int,
    parameters: LensingParameters,
    *,
    psf_fwhm: float,
    center: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """The image before noise.

    Args:
        system: what is seen.
        size: side of the image in pixels.
        parameters: field of view and engine.
        psf_fwhm: width of the point spread function in arcseconds.
        center: where the telescope points, (x, y) in arcseconds.

    Returns:
        float64 [size, size]: mean brightness of each pixel; x to the right, y down.
    """
    pixel = parameters.field_of_view / size
    factor = min(max(math.ceil(pixel / _FINE), 1), 16)
    fine = pixel / factor
    axis = (np.arange(size * factor) - (size * factor - 1) / 2) * fine
    x, y = np.meshgrid(axis + center[0], axis + center[1])
    if parameters.engine == "lenstronomy":
        from data_prep.synthetic.lenstronomy_engine import brightness
    else:
        brightness = trace
    image = smooth(brightness(system, x, y), psf_fwhm / _FWHM / fine)
    return image.reshape(size, factor, size, factor).mean(axis=(1, 3))


def trace(system: LensSystem, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Surface brightness at (x, y): the lens galaxy and the deflected source."""
    alpha_x, alpha_y = total_deflection(system.deflectors, x, y)
    return system.lens.light(x, y) + system.source.light(x - alpha_x, y - alpha_y)


def stretch(image: np.ndarray, softening: float) -> np.ndarray:
    """Brightness to [0, 1]: arcsinh, then percentiles 1 and 99.7 become 0 and 1."""
    curved = np.arcsinh(image / softening)
    low, high = np.percentile(curved, _PERCENTILES)
    return np.clip((curved - low) / max(high - low, 1e-12), 0, 1)


def lensing_sample(class_name: str, index: int, request: Request) -> Sample:
    """One image of the set, the same whatever else is made.

    Args:
        class_name: one of `LENSING_CLASSES`.
        index: which image of the class, from 0.
        request: seed, size, settings and format.

    Returns:
        The image, its record and what was drawn.
    """
    parameters, size = request.parameters, request.height
    assert isinstance(parameters, LensingParameters)
    rng = image_generator(request.seed, f"lensing/{class_name}", index)
    system = draw_system(class_name, parameters, rng)
    fwhm, photons = between(rng, parameters.psf_fwhm), between(rng, parameters.photons)
    background = between(rng, parameters.background)
    center = between(rng, (-0.15, 0.15)), between(rng, (-0.15, 0.15))
    borders = [round(between(rng, parameters.nan_border) * size) for _ in range(4)]
    clean = render(system, size, parameters, psf_fwhm=fwhm, center=center)
    # The same exposure whatever the pixels: a small one gathers fewer photons.
    area = (parameters.field_of_view / size / _PIXEL) ** 2
    image = rng.poisson(clean * photons * area) / (photons * area)
    image += rng.normal(0, background / math.sqrt(area), image.shape)
    row = {
        **system.row,
        "centre_x": center[0],
        "centre_y": center[1],
        "psf_fwhm": fwhm,
        "photons": photons,
        "background": background,
        **dict(zip(("nan_top", "nan_bottom", "nan_left", "nan_right"), borders, strict=True)),
    }
    if request.file_format == NPY:
        top, bottom, left, right = borders
        inside = np.zeros(image.shape, bool)
        inside[top : size - bottom, left : size - right] = True
        pixels = np.where(inside, image, np.nan).astype(np.float32)
    else:
        pixels = to_levels(stretch(image, parameters.softening), request.file_format)
    return single_image(class_name, index, pixels, row, request.file_format)


def check_lensing(request: Request) -> None:
    """Raises UserError for settings that do not go together, or a missing engine."""
    parameters = request.parameters
    assert isinstance(parameters, LensingParameters)
    if parameters.nan_border[1] > 0 and request.file_format != NPY:
        raise UserError("nan_border: a PNG cannot hold NaN; add --format=npy")
    if parameters.engine == "lenstronomy":
        from data_prep.synthetic.lenstronomy_engine import check_installed

        check_installed()
