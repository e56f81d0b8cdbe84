"""Deflection angles of thin gravitational lenses, in closed form.

A ray that is seen at the angle x comes from beta = x - alpha(x). The deflection alpha is the
gradient of the lensing potential; its divergence is twice the convergence kappa, the surface
density in units of the critical one, and its mean radial part on a circle of radius R is the mass
inside over R (Schneider, Ehlers & Falco 1992, "Gravitational Lenses"). Angles are in arcseconds.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

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
