"""Synthetic holes: depth maps, two simulated SEM pictures of each, and pictures of a "real" domain.

Every picture shows one rounded hole in a level surface. Depth counts from a reference plane above
the surface, in units that one may think of as nanometres, and its mean over the map is
140 + 10 * case for the cases 1 to 4, give or take `depth_spread`. A set has two domains:

* the simulated domain: two pictures of each map with different settings of the microscope, the
  depth map beside them;
* the "real" domain: other holes from the same distribution, seen by a microscope with stronger
  noise, a wider beam, charging and another contrast. Each site has four pictures, and only its
  mean depth is known: the mean of its maps.

    sim_sem/CASE/CASE_00000_0.png     real_sem/CASE/CASE_site_0000_0.png
    sim_depth/CASE/CASE_00000.png     site_means.csv    site, case, mean_depth
    manifest.csv                      simulated: path, label, group (the map), case, target,
                                      target_scale (units of depth of one stored unit)
    real_manifest.csv                 "real": path, label, group (the site), case

A grey level of an 8-bit depth map is one unit, of a 16-bit one 0.01; NPY holds the depth itself.

The signal of a pixel is the number of secondary electrons that leave it and get away:

* a tilted surface gives more of them, as 1 / cos(tilt) (Seiler 1983, J. Appl. Phys. 54, R1): walls
  and edges are bright;
* inside a hole the walls catch most of them. Electrons leave with a cosine distribution, so the
  share that escapes from a level patch is its sky view factor, the mean of cos^2(horizon angle)
  over all directions (Dozier & Frew 1990, IEEE Trans. Geosci. Remote Sens. 28, 963): deep floors
  are dark;
* the beam has a finite width, its electrons come one by one (Poisson), rows are shifted and shaded
  by an unsteady scan and by charging, and the detector has an offset, a gain and a gamma.

Multiple scattering, the landing energy and the material are left out.
"""

import math
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.manifest import Record
from data_prep.settings import setting
from data_prep.synthetic.noise import random_field, smooth
from data_prep.synthetic.sample import (
    ENDINGS,
    MANIFEST_NAME,
    NPY,
    PNG,
    PNG16,
    Parameters,
    Range,
    Request,
    Sample,
    SampleRow,
    between,
    image_generator,
    to_levels,
)

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
    """Computes the tails behind edges along the scan: an exponentially fading sum of rises."""
    from scipy.signal import lfilter

    rises = np.maximum(np.diff(rows, axis=1, prepend=rows[:, :1]), 0)
    return np.asarray(lfilter([1.0], [1.0, -decay], rises, axis=1)) - rises


SEM_CLASSES = {f"case_{n}": f"mean depth {140 + 10 * n}" for n in (1, 2, 3, 4)}
REAL_MANIFEST_NAME = "real_manifest.csv"
SITES_NAME = "site_means.csv"
IMAGES_PER_SITE = 4

_LEVELS_PER_UNIT = {PNG: 1, PNG16: 100}
_SCALES = {PNG: "1", PNG16: "0.01", NPY: "1"}  # the inverse, for manifests
_HOLE, _SIM, _REAL = "Holes", "Simulated microscope", "'Real' microscope"


@dataclass(frozen=True)
class SemDepthParameters(Parameters):
    """Settings of holes and of their pictures; ranges are drawn from for each of them."""

    TITLE: ClassVar[str] = "--kind=sem_depth"

    depth_spread: float = setting(
        2.0, "Sigma of the maps' mean depths within a case.", topic=_HOLE, low=0, high=20
    )
    pixel_size: float = setting(
        4.0, "Size of a pixel, in units of the depth.", topic=_HOLE, low=0.1
    )
    surface_depth: float = setting(
        130.0, "Depth of the surface around the hole.", topic=_HOLE, low=0, high=140
    )
    hole_radius: Range = setting(
        (0.42, 0.46),
        "Half axes of the hole over the sides of the image.",
        topic=_HOLE,
        low=0.2,
        high=0.48,
    )
    roughness: Range = setting(
        (0.5, 1.5), "Sigma of the surface's roughness.", topic=_HOLE, low=0, high=20
    )
    sim_electrons: Range = setting(
        (60, 200), "Detected electrons per pixel of open surface.", topic=_SIM, low=1
    )
    sim_contrast: Range = setting(
        (0.25, 0.35), "Grey levels per unit of signal.", topic=_SIM, low=0, high=5
    )
    real_electrons: Range = setting(
        (15, 50), "Detected electrons per pixel of open surface.", topic=_REAL, low=1
    )
    real_contrast: Range = setting(
        (0.2, 0.35), "Grey levels per unit of signal.", topic=_REAL, low=0, high=5
    )


@dataclass(frozen=True)
class Hole:
    """One drawn hole; depths in their unit, lengths in pixels.

    Attributes:
        mean_depth: mean of the depth map.
        surface_depth: of the surface.
        half_height: vertical half axis.
        half_width: horizontal half axis.
        centre_y: of its middle, from the image's.
        centre_x: of its middle, from the image's.
        power: exponent of its outline: 2 is an ellipse, larger is squarer.
        taper: width of the wall, as a fraction of the half axes.
        roughness: sigma of the surface's roughness.
    """

    mean_depth: float
    surface_depth: float
    half_height: float
    half_width: float
    centre_y: float
    centre_x: float
    power: float
    taper: float
    roughness: float


def case_depth(class_name: str) -> float:
    """Mean depth of a case: 140 + 10 * case."""
    return 140.0 + 10 * int(class_name.removeprefix("case_"))


def draw_hole(
    class_name: str,
    height: int,
    width: int,
    parameters: SemDepthParameters,
    rng: np.random.Generator,
) -> Hole:
    """Draws a hole of a case."""
    return Hole(
        mean_depth=case_depth(class_name) + float(rng.normal(0, parameters.depth_spread)),
        surface_depth=parameters.surface_depth,
        half_height=between(rng, parameters.hole_radius) * height,
        half_width=between(rng, parameters.hole_radius) * width,
        centre_y=between(rng, (-0.02, 0.02)) * height,
        centre_x=between(rng, (-0.02, 0.02)) * width,
        power=between(rng, (2.5, 4)),
        taper=between(rng, (0.12, 0.25)),
        roughness=between(rng, parameters.roughness),
    )


def depth_map(hole: Hole, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """The depth of every pixel.

    Args:
        hole: what to draw.
        height: of the map in pixels.
        width: of the map in pixels.
        rng: draws the outline's irregularity and the roughness.

    Returns:
        float64 [height, width], whose mean is the hole's mean depth.
    """
    rows = (np.arange(height) - (height - 1) / 2 - hole.centre_y) / hole.half_height
    columns = (np.arange(width) - (width - 1) / 2 - hole.centre_x) / hole.half_width
    y, x = np.meshgrid(rows, columns, indexing="ij")
    radius = (np.abs(y) ** hole.power + np.abs(x) ** hole.power) ** (1 / hole.power)
    around = np.arctan2(y, x)
    for wave in range(2, 6):  # no edge is perfect
        radius += rng.normal(0, 0.012) * np.cos(wave * around + between(rng, (0, 2 * math.pi)))
    # The wall: 0 on the surface, 1 on the floor, smooth at both ends.
    down = np.clip((1 - radius) / hole.taper, 0, 1)
    shape = smooth(down**2 * (3 - 2 * down), 0.7)
    rough = hole.roughness * random_field(rng, (height, width), 1.5)
    floor = (hole.mean_depth - hole.surface_depth - rough.mean()) / shape.mean()
    return hole.surface_depth + floor * shape + rough


def sim_beam(parameters: SemDepthParameters, rng: np.random.Generator) -> Beam:
    """A setting of the simulated microscope."""
    return Beam(
        width=between(rng, (0.5, 0.9)),
        electrons=between(rng, parameters.sim_electrons),
        edge=between(rng, (0.6, 0.8)),
        escape=between(rng, (0.9, 1.1)),
        brightness=between(rng, (0.02, 0.08)),
        contrast=between(rng, parameters.sim_contrast),
        gamma=1.0,
        line_noise=0.0,
        jitter=0.0,
        charging=0.0,
        slope=0.0,
    )


def real_beam(parameters: SemDepthParameters, rng: np.random.Generator) -> Beam:
    """A setting of the microscope of the "real" domain."""
    return Beam(
        width=between(rng, (1.0, 1.5)),
        electrons=between(rng, parameters.real_electrons),
        edge=between(rng, (0.5, 0.65)),
        escape=between(rng, (0.8, 0.95)),
        brightness=between(rng, (0.1, 0.18)),
        contrast=between(rng, parameters.real_contrast),
        gamma=between(rng, (0.75, 0.95)),
        line_noise=between(rng, (0.01, 0.04)),
        jitter=between(rng, (0.1, 0.4)),
        charging=between(rng, (0.1, 0.3)),
        slope=between(rng, (-0.15, 0.15)),
    )


def sem_depth_sample(class_name: str, index: int, request: Request) -> Sample:
    """One depth map with its two pictures, and one picture of the "real" domain.

    Args:
        class_name: one of `SEM_CLASSES`.
        index: which sample of the case, from 0.
        request: seed, size, settings and the format of the depth map.

    Returns:
        The files, their records in both manifests, what was drawn, and the site's mean.
    """
    simulated = _simulated(class_name, index, request)
    real = _real(class_name, index, request)
    return Sample(
        simulated.files | real.files,
        simulated.records | real.records,
        simulated.rows + real.rows,
        real.tables,
    )


def _simulated(class_name: str, index: int, request: Request) -> Sample:
    parameters = request.parameters
    assert isinstance(parameters, SemDepthParameters)
    rng = image_generator(request.seed, f"sem_depth/{class_name}", index)
    hole = draw_hole(class_name, request.height, request.width, parameters, rng)
    depth = depth_map(hole, request.height, request.width, rng)
    view = sky_view(depth, parameters.pixel_size)
    name = f"{class_name}_{index:05d}"
    target = f"sim_depth/{class_name}/{name}{ENDINGS[request.file_format]}"
    files, records, rows = {target: _stored(depth, request.file_format)}, [], []
    for number in range(2):
        beam = sim_beam(parameters, rng)
        path = f"sim_sem/{class_name}/{name}_{number}.png"
        clean = signal(depth, parameters.pixel_size, view, beam)
        files[path] = to_levels(detect(clean, beam, rng), PNG)
        records.append(
            Record(
                path, class_name, group=name, case=class_name, target=target,
                target_scale=_SCALES[request.file_format],
            )
        )  # fmt: skip
        rows.append(_row(path, "sim", class_name, name, hole, beam))
    return Sample(files, {MANIFEST_NAME: tuple(records)}, tuple(rows), {})


def _real(class_name: str, index: int, request: Request) -> Sample:
    parameters = request.parameters
    assert isinstance(parameters, SemDepthParameters)
    number, place = divmod(index, IMAGES_PER_SITE)
    site = f"{class_name}_site_{number:04d}"
    holes = []
    for member in range(IMAGES_PER_SITE):
        rng = image_generator(
            request.seed, f"sem_depth/real/{class_name}", number * IMAGES_PER_SITE + member
        )
        hole = draw_hole(class_name, request.height, request.width, parameters, rng)
        holes.append((hole, rng))
    hole, rng = holes[place]
    depth = depth_map(hole, request.height, request.width, rng)
    beam = real_beam(parameters, rng)
    clean = signal(depth, parameters.pixel_size, sky_view(depth, parameters.pixel_size), beam)
    path = f"real_sem/{class_name}/{site}_{place}.png"
    mean = sum(one.mean_depth for one, _ in holes) / IMAGES_PER_SITE
    return Sample(
        {path: to_levels(detect(clean, beam, rng), PNG)},
        {REAL_MANIFEST_NAME: (Record(path, class_name, group=site, case=class_name),)},
        (_row(path, "real", class_name, site, hole, beam),),
        {SITES_NAME: ({"site": site, "case": class_name, "mean_depth": round(mean, 4)},)},
    )


def _row(path: str, domain: str, class_name: str, group: str, hole: Hole, beam: Beam) -> SampleRow:
    head = {"path": path, "domain": domain, "class_name": class_name, "group": group}
    return head | asdict(hole) | {f"beam_{name}": value for name, value in asdict(beam).items()}


def _stored(depth: np.ndarray, file_format: str) -> np.ndarray:
    if file_format == NPY:
        return depth.astype(np.float32)
    levels = depth * _LEVELS_PER_UNIT[file_format]
    full = 255 if file_format == PNG else 65535
    if levels.max() > full or levels.min() < 0:
        raise UserError(
            f"depths from {depth.min():.0f} to {depth.max():.0f} do not fit a depth map of format "
            f"{file_format}: give --format=npy, or flatter holes (--surface_depth, --hole_radius)"
        )
    return to_levels(levels / full, file_format)
