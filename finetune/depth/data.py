"""From settings to the images of a run: read, paired, split, checked for leaks."""

import logging
from dataclasses import dataclass

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.open_images import open_declared
from data_prep.manifest.pairing import paired
from data_prep.manifest.read_options import Declaration, declaration_of
from data_prep.phrases import counted
from data_prep.reading.training_files import TrainingFiles, look_at
from finetune.depth.pairs import (
    DepthSet,
    check_targets,
    depth_range,
    only_case,
    refuse_leaks,
    unique_targets,
    with_depth_rule,
)
from finetune.depth.settings import DepthConfig
from finetune.depth.sources import TwoDomains, common_size, grey_source
from simclr_tf.training.data import with_splits

log = logging.getLogger(__name__)

VALIDATION, TEST = "validation", "test"


@dataclass(frozen=True)
class DepthData:
    """The images of a run.

    Attributes:
        manifest: All of them, in splits.
        train: What is trained on, with targets or with images of the real microscope.
        size: Height and width of every image.
        limits: Least and greatest depth of the training maps, in physical units; (0, 1) for images
            of the real microscope.
        reading: How files of images are read.
        train_split: Name of the training split.
        files: What the training files are like.
    """

    manifest: Manifest
    train: TwoDomains
    size: tuple[int, int]
    limits: tuple[float, float]
    reading: Declaration
    train_split: str
    files: TrainingFiles

    def part(self, split: str) -> DepthSet | None:
        """The images of a split; None if there is none."""
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
            f"--train_split={data.train_split}: the data has only {', '.join(manifest.splits)}"
        )
    refuse_leaks(manifest)
    train = manifest.split(data.train_split)
    images = grey_source(train, data.cache_dataset)
    limits, rows = (0.0, 1.0), None
    if config.to_real:
        goals = grey_source(_real_images(config), data.cache_dataset)
    else:
        limits = depth_range(train)
        maps, rows = unique_targets(train)
        goals = grey_source(with_depth_rule(maps, *limits), data.cache_dataset)
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
