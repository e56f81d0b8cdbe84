"""The images of a comparison: one sealed test set, folds, nested labels, decoded once.

A comparison keeps in its folder `division/`

    images.csv       all images: splits `train` (labelled or not) and `test`, which is sealed
    unlabelled.csv   what self-supervision sees: the images of `train`, without their labels
    labels/*.csv     for every fold, seed and amount of labels: what every strategy may learn from
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.manifest.groups import keep_together
from data_prep.manifest.label_subsets import label_fraction
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.splits import FoldPlan, make_folds, stratified_split
from data_prep.phrases import capitalized
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.order import Sampler, shuffled_index
from data_prep.storage import ANEW, new_folder, read_object
from finetune.compare.strategies import CompareSettings

FOLDER = "division"
_IMAGES, _UNLABELED, _LABELS, _NOTES = "images.csv", "unlabelled.csv", "labels", "notes.json"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LabelSet:
    """The labels of one cell, the same for every strategy.

    Attributes:
        fold: From 1.
        seed: Of the draw.
        fraction: Share of the fold's labelled training images; of a number a class about its share
            of them, the same in every fold.
        rows: int64 [n], positions in the images of the division.
        per_class: Labels of every class, where that was asked for; 0 = a share was.
    """

    fold: int
    seed: int
    fraction: float
    rows: np.ndarray
    per_class: int = 0

    @property
    def name(self) -> str:
        """A name for files."""
        return _name(self.fold, self.seed, self.fraction, self.per_class)


@dataclass(frozen=True)
class Division:
    """The images of a comparison, divided into training, test and sets of labels.

    Attributes:
        images: All of them.
        unlabeled: The images for self-supervision.
        label_sets: The sets of labels to learn from; every fold and seed has every fraction.
        remarks: Caveats for readers, sentences.
        grouped: Whether some images stay together.
    """

    images: Manifest
    unlabeled: Manifest
    label_sets: tuple[LabelSet, ...]
    remarks: tuple[str, ...] = ()
    grouped: bool = False

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes, of all labelled images."""
        return self.images.class_names

    @property
    def test_rows(self) -> np.ndarray:
        """Positions of the labelled test images, int64 [n]."""
        rows = (i for i, r in enumerate(self.images.records) if r.split == "test" and r.label)
        return np.array(list(rows), dtype=np.int64)

    @property
    def test(self) -> Manifest:
        """The sealed test images."""
        return self.take(self.test_rows)

    @property
    def fractions(self) -> tuple[float, ...]:
        """The amounts of labels, rising."""
        return tuple(sorted({known.fraction for known in self.label_sets}))

    def labels(self, fraction: float) -> int:
        """Labels of a cell, rounded over folds."""
        sizes = [len(s.rows) for s in self.label_sets if s.fraction == fraction]
        return round(sum(sizes) / len(sizes))

    def take(self, rows: np.ndarray) -> Manifest:
        """Some of the images, in the order of the rows."""
        return self.images.subset(self.images.records[row] for row in rows)


def divide_images(
    images: Manifest, settings: CompareSettings, progress: Callable[[str], Progress]
) -> Division:
    """Seals a test set and draws folds and labels.

    A test split that the images have is kept; otherwise one is drawn, stratified, with groups,
    identical and similar images on one side. Folds and labels come from what is left.

    Args:
        images: As they were found.
        settings: Shares, folds, seeds.
        progress: Makes a callback (done, all) from a word for what is counted.

    Raises:
        UserError: Too few classes, images or labels.
    """
    if len(images.class_names) < 2:
        raise UserError("needs labels of two classes or more: class folders, or a column label")
    grouped = False
    if "test" in images.splits:
        parted = images.subset(
            replace(r, split="test" if r.split == "test" else "train") for r in images.records
        )
        remarks = ["The test images are those that came as the split test."]
    else:
        images, kept = keep_together(
            images,
            group_by=settings.images.group_by,
            source=settings.images.manifest,
            near_duplicates="mirrored",
            progress=progress,
        )
        share, seed = settings.images.test_share, settings.design.seed
        parted = stratified_split(images, {"train": 1 - share, "test": share}, seed)
        remarks = [f"{capitalized(str(kept))}."]
    grouped = any(record.group for record in parted.records)
    sets, dropped = _label_sets(parted, settings)
    blank = parted.subset(replace(r, label="") for r in parted.records if r.split == "train")
    return Division(parted, blank, sets, (*remarks, *dropped), grouped)


def _label_sets(
    parted: Manifest, settings: CompareSettings
) -> tuple[tuple[LabelSet, ...], list[str]]:
    position = {image: i for i, image in enumerate(parted.images())}
    pool = parted.subset(r for r in parted.records if r.split == "train" and r.label)
    folds = [pool]
    if settings.design.folds > 1:
        rest = make_folds(pool, FoldPlan(settings.design.folds, "left out"), settings.design.seed)
        folds = [fold.split("train") for fold in rest]
    amounts, dropped = _amounts(settings, folds)
    sets: list[LabelSet] = []
    for number, fold in enumerate(folds, 1):
        for seed in range(settings.design.seed, settings.design.seed + settings.design.seeds):
            for fraction, per_class in amounts.items():
                try:
                    drawn = label_fraction(
                        fold,
                        seed,
                        fraction=None if per_class else fraction,
                        per_class=per_class or None,
                        unchosen="left_out",
                    )
                except UserError as error:
                    what = f"{per_class} labels a class" if per_class else (
                        f"{fraction:.3g} of the labels"
                    )  # fmt: skip
                    dropped[fraction] = f"{what} was left out: {error}."
                    continue
                rows = [position[image] for image in drawn.images()]
                sets.append(
                    LabelSet(number, seed, fraction, np.array(rows, dtype=np.int64), per_class)
                )
    kept = tuple(known for known in sets if known.fraction not in dropped)
    if not kept:
        first = next(iter(dropped.values()))
        if settings.design.label_fractions:
            raise UserError(f"{first} Give larger ones, such as 1", setting="label_fractions")
        raise UserError(f"{first} Give fewer, or --label_fractions=1", setting="labels_per_class")
    return kept, list(dropped.values())


def _amounts(
    settings: CompareSettings, folds: Sequence[Manifest]
) -> tuple[dict[float, int], dict[float, str]]:
    """The amounts of labels, rising.

    Returns:
        Share of a fold's labels -> labels a class, 0 where the share itself was asked for; and the
        sentences on numbers a class that are left out, by a key of their own.
    """
    labels = sum(len(fold) for fold in folds) / len(folds)
    classes = len(folds[0].class_names)
    amounts = dict.fromkeys(settings.design.label_fractions, 0)
    dropped: dict[float, str] = {}
    for number in sorted(set(settings.design.labels_per_class)):
        # Rounded, for it stands in tables.
        share = float(f"{number * classes / labels:.4g}")
        if share >= 1 or share in amounts:
            what = "more than there are" if share > 1 else f"{share:.3g} of the labels"
            dropped[-number] = f"{number} labels a class was left out: it is {what}."
        else:
            amounts[share] = number
    return dict(sorted(amounts.items())), dropped


def _name(fold: int, seed: int, fraction: float, per_class: int = 0) -> str:
    amount = f"per_class_{per_class}" if per_class else f"fraction_{fraction:g}"
    return f"fold_{fold}_seed_{seed}_{amount}"


def save_division(division: Division, output: Path) -> None:
    """Writes the folder `division`, whole or not at all."""
    with new_folder(output / FOLDER) as work:
        division.images.save(work / _IMAGES)
        division.unlabeled.save(work / _UNLABELED)
        (work / _LABELS).mkdir()
        for known in division.label_sets:
            division.take(known.rows).save(work / _LABELS / f"{known.name}.csv")
        facts = {
            "sets": [
                [s.fold, s.seed, s.fraction, *([s.per_class] if s.per_class else [])]
                for s in division.label_sets
            ],
            "remarks": division.remarks,
            "grouped": division.grouped,
        }
        (work / _NOTES).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def load_division(output: Path) -> Division:
    """Reads what `save_division` wrote."""
    folder = output / FOLDER
    images = Manifest.load(folder / _IMAGES)
    position = {image: i for i, image in enumerate(images.images())}
    facts = read_object(folder / _NOTES, ANEW)
    sets = []
    for fold, seed, fraction, *per_class in facts["sets"]:
        own = Manifest.load(folder / _LABELS / f"{_name(fold, seed, fraction, *per_class)}.csv")
        rows = np.array([position[image] for image in own.images()], dtype=np.int64)
        sets.append(LabelSet(fold, seed, fraction, rows, *per_class))
    unlabeled = Manifest.load(folder / _UNLABELED)
    return Division(images, unlabeled, tuple(sets), tuple(facts["remarks"]), facts["grouped"])


class Sources:
    """The labelled training images and the sealed test images, each as one source.

    Args:
        division: The images and their labels, divided.
        channels: Of the images.
    """

    def __init__(self, division: Division, channels: int) -> None:
        self._division, self._channels = division, channels
        records = division.images.records
        rows = [i for i, r in enumerate(records) if r.split == "train" and r.label]
        self.pool_rows = np.array(rows, dtype=np.int64)
        self.test_rows = division.test_rows
        self._place = {row: place for place, row in enumerate(rows)}

    @cached_property
    def pool(self) -> ManifestSource:
        """All labelled training images; a fit draws from some of them, see `limit`."""
        return self._open(self.pool_rows)

    @cached_property
    def test(self) -> ManifestSource:
        """The sealed test images."""
        return self._open(self.test_rows)

    def _open(self, rows: np.ndarray) -> ManifestSource:
        return ManifestSource(self._division.take(rows), self._division.class_names, self._channels)

    def limit(self, rows: np.ndarray) -> ManifestSource:
        """The training images, of which only some come in training.

        Args:
            rows: int64 [n], their positions in the division.

        Raises:
            KeyError: One of them is no labelled training image.
        """
        places = np.array([self._place[row] for row in rows.tolist()], dtype=np.int64)
        self.pool.sampler = subset_sampler(places)
        return self.pool


def subset_sampler(chosen: np.ndarray) -> Sampler:
    """A sampler of some images only: all of them in every epoch, each time in another order.

    Args:
        chosen: int64 [n], their indices in the source.
    """
    with tf.device("CPU:0"):
        table = tf.constant(chosen, tf.int64)
    number = len(chosen)

    def sample(position: tf.Tensor, seed: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.gather(table, shuffled_index(position, seed, number)), position // number

    return sample
