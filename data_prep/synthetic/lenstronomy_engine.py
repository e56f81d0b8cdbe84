"""The lens systems of `lensing`, traced by lenstronomy (Birrer & Amara 2018, PDU 22, 189).

lenstronomy has no line of mass: a vortex is a row of point masses, as in DeepLense.
"""

import math
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.synthetic.lens_system import Deflector, Ellipsoid, Galaxy, LensSystem, Line, Shear

_POINTS = 400  # along a vortex


def check_installed() -> None:
    """Raises UserError if lenstronomy is missing."""
    try:
        import lenstronomy  # noqa: F401
    except ImportError:
        raise UserError(
            "lenstronomy is not installed; pip install 'simclr-tf[lensing]', "
            "or leave --engine at numpy",
            setting="engine",
            value="lenstronomy",
        ) from None


def deflection(
    deflectors: tuple[Deflector, ...], x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The deflections of all masses, added up; like `lens_system.total_deflection`."""
    from lenstronomy.LensModel.lens_model import LensModel

    models = [model for one in deflectors for model in _lens_models(one)]
    if not models:
        return np.zeros_like(x), np.zeros_like(y)
    names = [name for name, _ in models]
    settings = [values for _, values in models]
    alpha_x, alpha_y = LensModel(names).alpha(x.ravel(), y.ravel(), settings)
    return alpha_x.reshape(x.shape), alpha_y.reshape(y.shape)


def brightness(system: LensSystem, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Surface brightness at (x, y); like `lensing.trace`."""
    alpha_x, alpha_y = deflection(system.deflectors, x, y)
    return _light(system.lens, x, y) + _light(system.source, x - alpha_x, y - alpha_y)


def _light(galaxy: Galaxy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    from lenstronomy.LightModel.light_model import LightModel

    e1, e2 = _ellipticity(galaxy.axis_ratio, galaxy.angle)
    settings = {
        "amp": galaxy.brightness,
        "R_sersic": galaxy.radius,
        "n_sersic": galaxy.index,
        "e1": e1,
        "e2": e2,
        "center_x": galaxy.x,
        "center_y": galaxy.y,
    }
    light = LightModel(["SERSIC_ELLIPSE"]).surface_brightness(x.ravel(), y.ravel(), [settings])
    return np.asarray(light).reshape(x.shape)


def _ellipticity(axis_ratio: float, angle: float) -> tuple[float, float]:
    strength = (1 - axis_ratio) / (1 + axis_ratio)
    return strength * math.cos(2 * angle), strength * math.sin(2 * angle)


def _lens_models(deflector: Deflector) -> list[tuple[str, dict[str, Any]]]:
    """A mass as lenstronomy's models and their settings."""
    if isinstance(deflector, Shear):
        double = 2 * deflector.angle
        gammas = deflector.strength * math.cos(double), deflector.strength * math.sin(double)
        return [("SHEAR", {"gamma1": gammas[0], "gamma2": gammas[1]})]
    if isinstance(deflector, Ellipsoid):
        place = {"center_x": deflector.x, "center_y": deflector.y}
        if deflector.axis_ratio == 1:
            return [("SIS", {"theta_E": deflector.theta_e, **place})]
        e1, e2 = _ellipticity(deflector.axis_ratio, deflector.angle)
        return [("SIE", {"theta_E": deflector.theta_e, "e1": e1, "e2": e2, **place})]
    assert isinstance(deflector, Line)
    steps = ((np.arange(_POINTS) + 0.5) / _POINTS - 0.5) * deflector.length
    c, s = math.cos(deflector.angle), math.sin(deflector.angle)
    radius = deflector.theta_e / math.sqrt(_POINTS)
    return [
        (
            "POINT_MASS",
            {"theta_E": radius, "center_x": deflector.x + c * at, "center_y": deflector.y + s * at},
        )
        for at in steps
    ]
