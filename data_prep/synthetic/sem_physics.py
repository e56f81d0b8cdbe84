"""How a depth map looks in a scanning electron microscope: slope, shadowing, beam, detector.

The signal of a pixel is the number of secondary electrons that leave it and get away:

* a tilted surface gives more of them, as 1 / cos(tilt) (Seiler 1983, J. Appl. Phys. 54, R1): walls
  and edges are bright;
* inside a hole most are caught by the walls. Electrons leave with a cosine distribution, so of a
  level patch the mean over all directions of cos^2(horizon angle) escapes, its sky view factor
  (Dozier & Frew 1990, IEEE Trans. Geosci. Remote Sens. 28, 963): deep floors are dark;
* the beam has a finite width, its electrons come one by one (Poisson), rows are shifted and shaded
  by an unsteady scan and by charging, and the detector has an offset, a gain and a gamma.

Multiple scattering, the landing energy and the material are left out.
"""

import math
from dataclasses import dataclass

import numpy as np

from data_prep.synthetic.noise import smooth

_DIRECTIONS = 16


@dataclass(frozen=True)
class Beam:
    """One setting of the microscope.

    Attributes:
        width: sigma of the beam, in pixels.
        electrons: detected per pixel of a level open surface.
        edge: exponent of 1 / cos(tilt).
        escape: exponent of the sky view factor; smaller with a stronger extraction field.
        brightness: grey level of no signal, in [0, 1].
        contrast: grey levels per unit of signal.
        gamma: exponent of the detector's curve.
        line_noise: sigma of each row's shading, as a fraction of the signal.
        jitter: sigma of each row's shift, in pixels.
        charging: height of the bright tails behind edges, along the scan.
        slope: brightness gained from left to right, as a fraction of the signal.
    """

    width: float
    electrons: float
    edge: float
    escape: float
    brightness: float
    contrast: float
    gamma: float
    line_noise: float
    jitter: float
    charging: float
    slope: float


def sky_view(depth: np.ndarray, pixel: float) -> np.ndarray:
    """The share of secondary electrons that escape, from every pixel taken as level.

    Args:
        depth: float [H, W], growing downwards; beyond the borders it goes on as at the border.
        pixel: size of a pixel in units of the depth.

    Returns:
        float64 [H, W] in (0, 1]: the mean over 16 directions of cos^2(horizon angle).
    """
    height, width = depth.shape
    reach = min(height, width) // 2
    padded = np.pad(depth, reach, mode="edge")
    total = np.zeros(depth.shape)
    for number in range(_DIRECTIONS):
        angle = 2 * math.pi * number / _DIRECTIONS
        tangent = np.zeros(depth.shape)
        for distance in _steps(reach):
            dy, dx = round(distance * math.sin(angle)), round(distance * math.cos(angle))
            away = math.hypot(dx, dy) * pixel
            there = padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
            np.maximum(tangent, (depth - there) / away, out=tangent)
        total += 1 / (1 + tangent**2)
    return total / _DIRECTIONS


def _steps(reach: int) -> list[int]:
    """Every pixel nearby, then ever larger steps: far walls change the horizon slowly."""
    steps = [1]
    while steps[-1] < reach:
        steps.append(min(reach, max(steps[-1] + 1, round(steps[-1] * 1.15))))
    return steps


def signal(depth: np.ndarray, pixel: float, view: np.ndarray, beam: Beam) -> np.ndarray:
    """Secondary electrons per pixel before noise: float64 [H, W], 1 on a level open surface.

    Args:
        depth: float [H, W].
        pixel: size of a pixel in units of the depth.
        view: what `sky_view` says of it.
        beam: the setting.
    """
    down, right = np.gradient(depth, pixel)
    tilt = (1 + down**2 + right**2) ** (beam.edge / 2)  # (1 / cos)^edge
    return smooth(tilt * view**beam.escape, beam.width)


def detect(clean: np.ndarray, beam: Beam, rng: np.random.Generator) -> np.ndarray:
    """The picture of a signal: noise, scan, charging and the detector's curve.

    Args:
        clean: float [H, W] from `signal`.
        beam: the setting.
        rng: draws the noise.

    Returns:
        float64 [H, W] in [0, 1].
    """
    height, width = clean.shape
    columns = np.arange(width)
    scanned = zip(rng.normal(0, beam.jitter, (height,)), clean, strict=True)
    rows = np.stack([np.interp(columns - shift, columns, row) for shift, row in scanned])
    rows = rows + beam.charging * _tails(rows)
    rows *= 1 + beam.slope * (columns / max(width - 1, 1) - 0.5)
    rows *= 1 + rng.normal(0, beam.line_noise, (height, 1))
    counts = rng.poisson(np.maximum(rows, 0) * beam.electrons) / beam.electrons
    return np.clip(beam.brightness + beam.contrast * counts, 0, 1) ** beam.gamma


def _tails(rows: np.ndarray, decay: float = 0.85) -> np.ndarray:
    """What edges leave behind along the scan: an exponentially fading sum of rises."""
    from scipy.signal import lfilter

    rises = np.maximum(np.diff(rows, axis=1, prepend=rows[:, :1]), 0)
    return np.asarray(lfilter([1.0], [1.0, -decay], rises, axis=1)) - rises
