"""Images and their depth maps as arrays: the one place where either is read.

Depth is in physical units: what the file stores, times the manifest's `target_scale` (units of
one stored unit; empty = 1). 8-bit, 16-bit and floating point maps all have their own values.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.leaks import check_leaks
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.pairing import scale_of
from data_prep.parallel import in_parallel
from data_prep.reading.images import read_image, read_stored
from data_prep.reading.spec import Reading, parse_reading
from data_prep.reading.tiles import check_inside, parse_box

_SHOWN = 3


class DepthSet:
    """Images of a manifest, and their depth maps if they have any.

    Args:
        manifest: With the fields path, target, case, group, split, target_scale.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    @property
    def records(self) -> tuple[Record, ...]:
        """The records, in order."""
        return self.manifest.records

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases in use, sorted."""
        return tuple(sorted({case_of(record) for record in self.records} - {""}))

    def images(self, records: Sequence[Record]) -> np.ndarray:
        """The images of some records: float32 [n, H, W, 1] in [0, 1]; colour becomes luma.

        Raises:
            UserError: An image cannot be read, or they are not of one size.
        """
        part = self.manifest.subset(records)
        jobs = zip(part.files(), records, strict=True)
        return _stacked([(file, record) for file, record in jobs], _image)

    def targets(self, records: Sequence[Record]) -> np.ndarray:
        """The depth maps of some records: float32 [n, H, W, 1] in physical units.

        Raises:
            UserError: An image has no target, or a target cannot be read, is of several channels,
                holds values that are not finite, or is not of the others' size.
        """
        part = self.manifest.subset(records)
        check_targets(part)
        return _stacked(list(zip(part.target_files(), records, strict=True)), _depth)


def case_of(record: Record) -> str:
    """The case of an image: the manifest's, or its class folder."""
    return record.case or record.label


def only_case(manifest: Manifest, case: str) -> Manifest:
    """The images of one case.

    Raises:
        UserError: There are none.
    """
    chosen = [record for record in manifest.records if case_of(record) == case]
    if not chosen:
        known = sorted({case_of(record) for record in manifest.records} - {""})
        raise UserError(f"--case={case}: no image has it; there are {', '.join(known) or 'none'}")
    return manifest.subset(chosen)


def check_targets(manifest: Manifest) -> None:
    """Sees to it that every image has a target that is there.

    Raises:
        UserError: With the names of those that have none.
    """
    without = [record.path for record in manifest.records if not record.target]
    if without:
        raise UserError(
            f"{len(without)} of {len(manifest)} images have no target: {_some(without)}; fill the "
            "column target, or pair by name: --target_dir=FOLDER"
        )
    pairs = zip(manifest.records, manifest.target_files(), strict=True)
    gone = [f"{record.path} -> {file}" for record, file in pairs if not os.path.isfile(file)]
    if gone:
        raise UserError(f"{len(gone)} targets are not there: {_some(gone)}")


def refuse_leaks(manifest: Manifest) -> None:
    """Refuses splits that share a target, a group or a picture.

    Raises:
        UserError: With an example.
    """
    shared = [leak for leak in check_leaks(manifest) if leak.shared]
    if shared:
        leak = shared[0]
        raise UserError(
            f"{leak.shared} of {leak.checked} ({leak.what}) are in two splits, such as "
            f"{leak.example}: no error measured there would mean anything; split anew with "
            "simclr-split --resplit, which keeps them on one side"
        )


def unique_targets(manifest: Manifest) -> tuple[Manifest, np.ndarray]:
    """Every depth map once, and which of them belongs to each image.

    Args:
        manifest: Images with targets.

    Returns:
        A manifest whose images are the depth maps, with the tiles and scales of the images; and
        the row in it of every image, int64 [n].
    """
    rows: dict[tuple[str, str], int] = {}
    maps: list[Record] = []
    chosen = np.zeros(len(manifest), np.int64)
    pairs = zip(manifest.records, manifest.target_files(), strict=True)
    for place, (record, file) in enumerate(pairs):
        key = file, record.tile
        if key not in rows:
            rows[key] = len(maps)
            maps.append(
                Record(file, case=record.case, tile=record.tile, target_scale=record.target_scale)
            )
        elif maps[rows[key]].target_scale != record.target_scale:
            raise UserError(f"{record.target}: is said to have two scales; let them agree")
        chosen[place] = rows[key]
    return Manifest(tuple(maps)), chosen


def depth_range(manifest: Manifest) -> tuple[float, float]:
    """Least and greatest depth of the maps of some images, in physical units.

    Raises:
        UserError: As `DepthSet.targets`; or there is one depth only.
    """
    maps, _ = unique_targets(manifest)
    work = partial(_each, _limits)
    found = np.array(list(in_parallel(work, list(zip(maps.files(), maps.records, strict=True)),
                                      processes=False)))  # fmt: skip
    low, high = float(found[:, 0].min()), float(found[:, 1].max())
    if not low < high:
        raise UserError(f"all training targets have the depth {low:g}: there is nothing to learn")
    return low, high


def with_depth_rule(maps: Manifest, low: float, high: float) -> Manifest:
    """Depth maps that are read as float32 in [0, 1], from `low` to `high` in physical units."""

    def rule(record: Record) -> str:
        scale = scale_of(record.target_scale)
        return f"intensity=minmax@{low / scale!r},{high / scale!r}"

    return maps.subset(replace(record, reading=rule(record)) for record in maps.records)


_Job = tuple[str, Record]


def _stacked(jobs: Sequence[_Job], read: Callable[[_Job], np.ndarray]) -> np.ndarray:
    if not jobs:
        raise UserError("no images to read")
    stacked: np.ndarray | None = None
    for place, pixels in enumerate(in_parallel(partial(_each, read), jobs, processes=False)):
        if stacked is None:
            stacked = np.empty((len(jobs), *pixels.shape), np.float32)
        if pixels.shape != stacked.shape[1:]:
            raise UserError(
                f"{jobs[place][0]} has {_shown_size(pixels)} pixels, {jobs[0][0]} has "
                f"{_shown_size(stacked[0])}; they must all be of one size (simclr-manifest --tile "
                "cuts them)"
            )
        stacked[place] = pixels
    assert stacked is not None
    return stacked


def _each(read: Callable[[_Job], np.ndarray], jobs: Sequence[_Job]) -> list[np.ndarray]:
    return [read(job) for job in jobs]


def _image(job: _Job) -> np.ndarray:
    file, record = job
    pixels = read_image(file, 1, record.reading, record.tile)
    return pixels.astype(np.float32) / 255 if pixels.dtype == np.uint8 else pixels


def _depth(job: _Job) -> np.ndarray:
    file, record = job
    # The map lies as its image does.
    stored = read_stored(file, str(Reading(exif=parse_reading(record.reading).exif)))
    if stored.shape[-1] != 1:
        raise UserError(f"{file}: has {stored.shape[-1]} channels; a depth map has one")
    if record.tile:
        box = parse_box(record.tile)
        check_inside(box, *stored.shape[:2])
        stored = stored[box.y : box.y + box.height, box.x : box.x + box.width]
    if not np.isfinite(stored).all():
        raise UserError(f"{file}: holds depths that are not finite (NaN or infinity)")
    return (stored * np.float64(scale_of(record.target_scale))).astype(np.float32)


def _limits(job: _Job) -> np.ndarray:
    depth = _depth(job)
    return np.array([depth.min(), depth.max()], np.float64)


def _shown_size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[0]}x{pixels.shape[1]}"


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")
