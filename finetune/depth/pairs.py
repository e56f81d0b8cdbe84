"""Images and their depth maps as arrays: read, paired, split, checked for leaks.

Depth is in physical units: what the file stores, times the manifest's `target_scale` (units of
one stored unit; empty = 1). 8-bit, 16-bit and floating-point maps are read without rescaling.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import tensorflow as tf

from data_prep.augment.color import to_float
from data_prep.errors import UserError
from data_prep.manifest.leaks import check_leaks
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.open_images import open_declared
from data_prep.manifest.pairing import paired, scale_of
from data_prep.manifest.read_options import Declaration, declaration_of
from data_prep.parallel import in_parallel
from data_prep.phrases import counted
from data_prep.reading.images import read_image, read_stored
from data_prep.reading.spec import Reading, parse_reading
from data_prep.reading.tiles import check_inside, parse_box
from data_prep.reading.training_files import TrainingFiles, look_at
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.order import shuffled_index
from data_prep.sources.source import Element, Source
from finetune.depth.settings import DepthConfig
from simclr_tf.training.data import with_splits

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
        raise UserError(
            f"no image has it; there are {', '.join(known) or 'none'}", setting="case", value=case
        )
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
    """Lists every depth map once, and finds the one that belongs to each image.

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


Cache = Literal["auto", "true", "false"]

_OTHER_ORDER = 0x0B  # another order of the goal's images than of those that are translated


class TwoDomains(Source):
    """Images, each with one of another domain: its own target, or any.

    An example is decoded to float32 [H, W, 2] in [0, 1]: the image, then the one of the goal.

    Args:
        images: The images to translate.
        goals: The images of the other domain: depth maps or other images.
        rows: Which goal belongs to each image, int64 [n]; None = they come unpaired, each in an
            order of its own.
        size: Height and width that all of them have.
        seed: The run's, for the order of unpaired goals.
    """

    def __init__(
        self,
        images: ManifestSource,
        goals: ManifestSource,
        rows: np.ndarray | None,
        size: tuple[int, int],
        seed: int = 0,
    ) -> None:
        self._images, self._goals, self._rows = images, goals, rows
        self._size, self._seed = size, seed
        self.num_examples = images.num_examples
        self.class_names: tuple[str, ...] = ()
        self.channels = 2
        self.image_dtype = tf.float32
        paired = "unpaired" if rows is None else rows.tobytes().hex()
        parts = (images.identity, goals.identity, paired)
        self.identity = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()

    def elements(
        self,
        *,
        seed: int,
        shuffle: bool,
        start: int,
        batch_size: int,
        shard: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        """See `Source.elements`."""
        self._goals.prepare()
        return self._images.elements(
            seed=seed, shuffle=shuffle, start=start, batch_size=batch_size, shard=shard
        )

    @tf.autograph.experimental.do_not_convert
    def decode(self, element: Element) -> tf.Tensor:
        """See `Source.decode`."""
        goal = self._goals.decode(self._goals.element(self._goal(element)))
        pair = [to_float(self._images.decode(element)), to_float(goal)]
        return tf.concat([tf.ensure_shape(one, [*self._size, 1]) for one in pair], -1)

    def _goal(self, element: Element) -> tf.Tensor:
        if self._rows is not None:
            with tf.device("CPU:0"):
                return tf.gather(tf.constant(self._rows), element["index"])
        position = element["epoch"] * self.num_examples + element["index"]
        seed = (self._seed << 8) + _OTHER_ORDER
        return shuffled_index(position[tf.newaxis], seed, self._goals.num_examples)[0]

    def diagnose(self) -> UserError | None:
        """See `Source.diagnose`."""
        return self._images.diagnose() or self._goals.diagnose()


def gray_source(manifest: Manifest, cache: Cache) -> ManifestSource:
    """The images of a manifest with one channel, without classes.

    Raises:
        UserError: Images that cannot be read.
    """
    unlabeled = manifest.subset(replace(record, label="") for record in manifest.records)
    return ManifestSource(unlabeled, (), 1, cache)


def common_size(*sources: ManifestSource) -> tuple[int, int]:
    """Height and width of all images.

    Raises:
        UserError: With two images that differ.
    """
    first = sources[0]
    height, width = first.sizes[0]
    for source in sources:
        other = np.flatnonzero((source.sizes != (height, width)).any(axis=1))
        if other.size:
            at = int(other[0])
            raise UserError(
                f"{source.manifest.files()[at]} has {source.sizes[at, 0]}x{source.sizes[at, 1]} "
                f"pixels, {first.manifest.files()[0]} has {height}x{width}; images and targets "
                "must all be of one size (simclr-manifest --tile cuts them)"
            )
    return int(height), int(width)


log = logging.getLogger(__name__)

VALIDATION, TEST = "validation", "test"


@dataclass(frozen=True)
class DepthData:
    """The images of a run.

    Attributes:
        manifest: All of them, in splits.
        train: The training images, with targets or with images of the real microscope.
        size: Height and width of every image.
        limits: Least and greatest depth of the training maps, in physical units; (0, 1) for images
            of the real microscope.
        reading: How files of images are read.
        train_split: Name of the training split.
        files: Properties of the training files.
    """

    manifest: Manifest
    train: TwoDomains
    size: tuple[int, int]
    limits: tuple[float, float]
    reading: Declaration
    train_split: str
    files: TrainingFiles

    def part(self, split: str) -> DepthSet | None:
        """The images of a split; None if there is no such split."""
        return DepthSet(self.manifest.split(split)) if split in self.manifest.splits else None


def open_manifest(config: DepthConfig) -> Manifest:
    """All images that the settings name, each in a split and, but for real images, with a target.

    Raises:
        UserError: No images, images without target, or splits that share something.
    """
    data = config.data
    if not (data.image_dir or data.manifest):
        raise UserError("give --manifest=FILE, or --image_dir=FOLDER and --target_dir=FOLDER")
    manifest = open_declared(
        data.image_dir,
        data.manifest,
        config.reading,
        skip_unreadable=data.skip_unreadable,
    )
    manifest = paired(manifest, data.target_dir, data.pair_by, data.target_scale)
    if not config.to_real:
        check_targets(manifest)
    return with_splits(manifest, data.data_settings())


def open_data(config: DepthConfig, manifest: Manifest) -> DepthData:
    """The images of one run.

    Args:
        config: Its settings; `case` says which of the images count.
        manifest: From `open_manifest`.

    Raises:
        UserError: Nothing to train on, images or targets of several sizes, or a leak.
    """
    data = config.data
    if data.case:
        manifest = only_case(manifest, data.case)
    if data.train_split not in manifest.splits:
        raise UserError(
            f"the data has only {', '.join(manifest.splits)}",
            setting="train_split",
            value=data.train_split,
        )
    refuse_leaks(manifest)
    train = manifest.split(data.train_split)
    images = gray_source(train, data.cache_dataset)
    limits, rows = (0.0, 1.0), None
    if config.to_real:
        goals = gray_source(_real_images(config), data.cache_dataset)
    else:
        limits = depth_range(train)
        maps, rows = unique_targets(train)
        goals = gray_source(with_depth_rule(maps, *limits), data.cache_dataset)
    size = common_size(images, goals)
    unpaired = config.network.model == "cyclegan" and not config.gan.guided_weight
    both = TwoDomains(images, goals, None if unpaired else rows, size, config.machine.seed)
    reading, files = declaration_of(manifest), look_at(train)
    return DepthData(manifest, both, size, limits, reading, data.train_split, files)


def _real_images(config: DepthConfig) -> Manifest:
    """The training images of the real microscope: all where there are no splits."""
    data = config.data
    manifest = open_declared(
        "", data.real_manifest, config.reading, skip_unreadable=data.skip_unreadable
    )
    if data.case:
        manifest = only_case(manifest, data.case)
    if data.train_split in manifest.splits:
        manifest = manifest.split(data.train_split)
    log.info("%s of the real microscope", counted(len(manifest), "image"))
    return manifest
