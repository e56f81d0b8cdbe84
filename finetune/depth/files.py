"""Predicted depth maps as files: names, 16-bit scale, archive.

depth/NAME.png      16-bit grey, depth = offset + step * level (depth_scale.json)
float/NAME.npy      float32 [H, W], the depth itself
submission.zip      the depth images alone, under the inputs' names; equal maps, equal bytes
"""

import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.root import common_folder
from data_prep.storage import write_bytes, write_text
from data_prep.synthetic.sample import encode

DEPTH, FLOAT = "depth", "float"
SCALE = "depth_scale.json"
ARCHIVE = "submission.zip"
ARCHIVE_FORMATS = ("png16", "png8", "npy")

_LEVELS = 65535
_FINE_STEP = 0.01  # as in the depth maps of `simclr-synthesize --format=png16`
_MARGIN = 0.1  # of the known range, for predictions beyond it
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a ZIP archive can tell


@dataclass(frozen=True)
class DepthScale:
    """The scale of a 16-bit depth image: depth = offset + step * level.

    Attributes:
        unit: of depth; empty = not known.
        offset: depth of level 0.
        step: depth of a level.
        depth_min: least depth that the network was trained for.
        depth_max: greatest one.
    """

    unit: str
    offset: float
    step: float
    depth_min: float
    depth_max: float

    def to_levels(self, depth: np.ndarray) -> np.ndarray:
        """uint16 of depths float [...]; what lies beyond the scale is clipped."""
        levels = np.rint((depth.astype(np.float64) - self.offset) / self.step)
        return np.clip(levels, 0, _LEVELS).astype(np.uint16)

    def clipped(self, depth: np.ndarray) -> int:
        """The number of depths beyond the scale."""
        top = self.offset + self.step * _LEVELS
        return int(((depth < self.offset) | (depth > top)).sum())

    def save(self, folder: Path) -> None:
        """Writes `depth_scale.json`."""
        facts: dict[str, Any] = {"depth": "offset + step * level", **asdict(self)}
        write_text(folder / SCALE, json.dumps(facts, indent=2) + "\n")


def depth_scale(depth_min: float, depth_max: float, unit: str) -> DepthScale:
    """The scale for depths of a known range, with a margin for predictions beyond it.

    0.01 units a level from 0 where that reaches far enough, as in synthetic sets; else the range
    and a tenth of it at both ends over all levels.
    """
    margin = _MARGIN * (depth_max - depth_min)
    low, high = depth_min - margin, depth_max + margin
    if low >= 0 and high <= _FINE_STEP * _LEVELS:
        return DepthScale(unit, 0.0, _FINE_STEP, depth_min, depth_max)
    return DepthScale(unit, low, (high - low) / _LEVELS, depth_min, depth_max)


def output_names(manifest: Manifest) -> list[str]:
    """The inputs' names without their endings: paths with `/` below the folder that holds all.

    Relative paths are kept as they are.

    Raises:
        UserError: Records that are parts of files, or two with the same name.
    """
    parts = [r for r in manifest.records if r.tile or "page=" in r.reading]
    if parts:
        raise UserError(
            f"{parts[0].path}: is a tile or page of a file; depth is predicted of whole files"
        )
    paths = [record.path for record in manifest.records]
    outside = any(os.path.isabs(path) or ".." in Path(path).parts for path in paths)
    if outside:
        files = manifest.files()
        base = common_folder(files)
        paths = [os.path.relpath(file, base) for file in files]
    names = [PurePosixPath(Path(path).as_posix()).with_suffix("").as_posix() for path in paths]
    seen: dict[str, str] = {}
    for name, path in zip(names, paths, strict=True):
        other = seen.setdefault(name.casefold(), path)
        if other != path:
            raise UserError(f"{other} and {path}: their depth images would have one name; rename")
    return names


def write_depth(folder: Path, name: str, depth: np.ndarray, scale: DepthScale) -> None:
    """Writes one map, float32 [H, W], as PNG and NPY, each whole or not at all."""
    for kind, ending, pixels in (
        (DEPTH, ".png", scale.to_levels(depth)),
        (FLOAT, ".npy", depth.astype(np.float32)),
    ):
        file = folder / kind / f"{name}{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, encode(pixels))


def read_depths(folder: Path, names: Sequence[str]) -> np.ndarray:
    """Reads maps that `write_depth` wrote: float32 [n, H, W]."""
    return np.stack([np.load(folder / FLOAT / f"{name}.npy") for name in names])


def write_archive(folder: Path, names: Iterable[str], archive_format: str) -> Path:
    """Packs the maps: the same maps give the same bytes, whenever and wherever they are packed.

    Args:
        folder: Where `write_depth` wrote.
        names: Of the maps, in the order of the archive.
        archive_format: `png16`, the depth images as they are; `png8`, a grey level a unit, clipped
            to 0 and 255; `npy`, the depths.
    """
    path = folder / ARCHIVE
    temporary = path.with_name(f".{ARCHIVE}.part")
    ending = ".npy" if archive_format == "npy" else ".png"
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed
        for name in names:
            entry = zipfile.ZipInfo(f"{name}{ending}", _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, _packed(folder, name, archive_format))
    temporary.replace(path)
    return path


def _packed(folder: Path, name: str, archive_format: str) -> bytes:
    if archive_format == "png16":
        return (folder / DEPTH / f"{name}.png").read_bytes()
    if archive_format == "npy":
        return (folder / FLOAT / f"{name}.npy").read_bytes()
    levels = np.rint(np.load(folder / FLOAT / f"{name}.npy"))
    return encode(np.clip(levels, 0, 255).astype(np.uint8))
