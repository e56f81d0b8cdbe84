"""From settings to labelled images by split: what a classifier trains on and is scored on."""

import logging
from dataclasses import dataclass, field

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.label_subsets import label_fraction
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.read_options import Declaration, declaration_of
from data_prep.reading.training_files import TrainingFiles, look_at
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.order import balanced_sampler
from finetune.config import LabeledImages
from simclr_tf.training.data import read_manifest

log = logging.getLogger(__name__)

VALIDATION = "validation"


@dataclass(frozen=True)
class LabeledData:
    """The images of a run, by split.

    Attributes:
        manifest: All of them; of the training split those that are trained on.
        train_split: Name of the training split.
        sources: Every split by name, in the manifest's order.
        reading: How the files become images, as the network's record should say.
        files: Properties of the training files; None = not known.
    """

    manifest: Manifest
    train_split: str
    sources: dict[str, ManifestSource]
    reading: Declaration = field(default_factory=Declaration)
    files: TrainingFiles | None = None

    @property
    def train(self) -> ManifestSource:
        """The training images."""
        return self.sources[self.train_split]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        return self.train.class_names

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return self.train.channels

    def has_labels(self, split: str) -> bool:
        """True if there is such a split and any of its images has a label."""
        return split in self.sources and bool((self.sources[split].labels() >= 0).any())


def open_labeled(
    settings: LabeledImages, reading: Declaration, sampling: str = "natural"
) -> LabeledData:
    """Opens the images that the settings name, and leaves the training images their labels.

    Args:
        settings: Where the images are, and how many labels of them count.
        reading: How files are read.
        sampling: `balanced` shows every class equally often in training.

    Returns:
        The sources. Training images without a label are left out.

    Raises:
        UserError: No images, no labels, one class, or no such split.
    """
    if not (settings.image_dir or settings.manifest):
        raise UserError("give --image_dir=FOLDER or --manifest=FILE")
    manifest = read_manifest(settings.data_settings(), reading)
    split = settings.train_split
    if split not in manifest.splits:
        raise UserError(
            f"the data has only {', '.join(manifest.splits)}", setting="train_split", value=split
        )
    manifest = _with_labels(manifest, settings)
    names = manifest.class_names
    _check_classes(manifest, split)
    wanted: int | str = settings.image_channels
    channels = wanted if wanted == "auto" else int(wanted)
    train = ManifestSource(manifest.split(split), names, channels, settings.cache_dataset)
    if sampling == "balanced":
        train.sampler = balanced_sampler(train.labels(), len(names))
    sources = {
        name: train
        if name == split
        else ManifestSource(manifest.split(name), names, train.channels, settings.cache_dataset)
        for name in manifest.splits
    }
    files = look_at(train.manifest)
    return LabeledData(manifest, split, sources, declaration_of(manifest), files)


def _with_labels(manifest: Manifest, settings: LabeledImages) -> Manifest:
    """Only the training images whose labels count; the other splits as they are."""
    split = settings.train_split
    manifest = manifest.subset(r for r in manifest.records if r.label or r.split != split)
    if split not in manifest.splits:
        raise UserError("no training image has a label; use class folders, or a column label")
    number, share = settings.labels_per_class, settings.label_fraction
    if not number and share == 1:
        return manifest
    kept = label_fraction(
        manifest,
        settings.label_seed,
        fraction=None if number else share,
        per_class=number or None,
        split=split,
        unchosen="left_out",
    )
    before, after = len(manifest.split(split)), len(kept.split(split))
    log.info("training on %d of %d labelled images", after, before)
    return kept


def _check_classes(manifest: Manifest, split: str) -> None:
    names, trained = manifest.class_names, manifest.split(split).class_names
    if len(names) < 2:
        raise UserError(f"the data has only the class {names[0]!r}; give two classes or more")
    unseen = [name for name in names if name not in trained]
    if unseen:
        log.warning(
            "no training image of %s: the classifier cannot learn what is scored", ", ".join(unseen)
        )


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Images of every class, int64 [K]; images without a label do not count."""
    return np.bincount(labels[labels >= 0], minlength=num_classes)
