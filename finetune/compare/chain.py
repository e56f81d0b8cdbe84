"""One chain of a comparison: an encoder, and all rows that stand on it."""

import gc
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.label_subsets import pool_subset
from data_prep.manifest.manifest import Manifest
from data_prep.sources.manifest_source import ManifestSource
from data_prep.storage import Checksums, read_object
from finetune.classifier import Classifier, SimCLRBackbone
from finetune.compare.budget import Sizes
from finetune.compare.images import Division, LabelSet, Sources
from finetune.compare.recipes import Networks
from finetune.compare.strategies import MAJORITY, CompareSettings, Encoder, StrategyRow
from finetune.config import ClassifierConfig
from finetune.refit import Refit
from simclr_tf.checkpoints.load import Checkpoints, load_model, open_checkpoint
from simclr_tf.checkpoints.write import write_model
from simclr_tf.config.run_config import RunConfig
from simclr_tf.config.sections import MachineSettings
from simclr_tf.evaluation.features import Embeddings
from simclr_tf.evaluation.floors import majority
from simclr_tf.evaluation.linear_probe import fit_linear_probe
from simclr_tf.evaluation.metrics import softmax
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.training import distribution
from simclr_tf.training.build import view_config
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.distribution import connect
from simclr_tf.training.evaluator import Evaluator
from simclr_tf.training.floors import raw_pixels
from simclr_tf.training.from_checkpoint import Origins, adopt_checkpoint, open_origins
from simclr_tf.training.run import execute
from simclr_tf.training.run_dir import RunDir

log = logging.getLogger(__name__)

FOLDER = "cells"
COSTS = "costs"


@dataclass(frozen=True)
class Cell:
    """A row with one set of labels.

    Attributes:
        row: Its slug.
        fold: See `LabelSet`.
        seed: See `LabelSet`.
        fraction: See `LabelSet`.
        labels: Images that it has learnt from.
        steps: Updates with labels.
        seconds: Time of the fit.
        images_seen: Images shown in the fit.
        probabilities: float64 [n, K], of the test images.
    """

    row: str
    fold: int
    seed: int
    fraction: float
    labels: int
    steps: int
    seconds: float
    images_seen: int
    probabilities: np.ndarray


def cell_file(output: Path, row: StrategyRow, labels: LabelSet) -> Path:
    """The path of a cell's file."""
    return output / FOLDER / row.slug / f"{labels.name}.json"


def save_cell(output: Path, row: StrategyRow, labels: LabelSet, cell: Cell) -> None:
    """Writes a cell, whole or not at all."""
    file = cell_file(output, row, labels)
    file.parent.mkdir(parents=True, exist_ok=True)
    facts = {**asdict(cell), "probabilities": cell.probabilities.tolist()}
    Checksums(file.parent).write_text(file.name, json.dumps(facts) + "\n")


def load_cell(output: Path, row: StrategyRow, labels: LabelSet) -> Cell | None:
    """Reads a cell; None if it has not been done, or is damaged, which is said."""
    file = cell_file(output, row, labels)
    if not file.is_file():
        return None
    facts = _read(file)
    try:
        return Cell(**{**facts, "probabilities": np.array(facts["probabilities"], np.float64)})
    except (KeyError, TypeError):
        return None


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_object(file)
    except UserError as error:
        log.warning("%s; it counts as not done", error)
        return {}


def note_cost(output: Path, what: str, seconds: float, images: int) -> None:
    """Notes what shared work has cost: a pretraining, or features."""
    folder = output / COSTS
    folder.mkdir(exist_ok=True)
    facts = {"seconds": seconds, "images": images}
    Checksums(folder).write_text(f"{what}.json", json.dumps(facts) + "\n")


def read_cost(output: Path, what: str) -> tuple[float, int]:
    """Seconds and images of shared work; 0 if there was none."""
    file = output / COSTS / f"{what}.json"
    if not file.is_file():
        return 0.0, 0
    facts = _read(file)
    return float(facts.get("seconds", 0.0)), int(facts.get("images", 0))


FACTOR = 2
"""Updates of a student for each of its teacher's fine-tuning."""

_RATE = 0.004  # of Adam, times batch / 256


def distil(
    teacher: Classifier,
    fitted: ClassifierConfig,
    division: Division,
    drawn: LabelSet,
    folder: Path,
    checkpoints: Checkpoints,
) -> tuple[np.ndarray, int]:
    """Trains a student of the teacher's size, which begins where the teacher's training did.

    Args:
        teacher: On a SimCLR encoder, fine-tuned.
        fitted: How it was.
        division: All images; the labels of the others stay hidden.
        drawn: The labels that the teacher has seen.
        folder: For teacher and student.
        checkpoints: Those that the comparison starts from.

    Returns:
        The student's probabilities of the test images, float64 [n, K], and its updates.

    Raises:
        KeyboardInterrupt: A signal asked to stop.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = as_simclr(teacher)
    write_model(model, folder / "teacher", "tf2")
    manifest = folder / "images.csv"
    _with_labels(division, drawn).save(manifest)
    values = fitted.values()
    steps = FACTOR * values["train_steps"]
    own = {name: values[name] for name in (
        "image_size", "min_crop_area", "min_crop_aspect", "vertical_flip", "right_angle_rotation",
        "central_crop", "whole_image", "seed", "train_batch_size", "eval_batch_size",
    )}  # fmt: skip
    asked = {
        **own,
        "train_mode": "distill",
        "teacher": str(folder / "teacher"),
        "checkpoint": "" if values["fresh_weights"] else values["encoder"],
        "manifest": str(manifest),
        "model_dir": str(folder / "student"),
        "train_steps": steps,
        "checkpoint_steps": steps,
        "keep_checkpoint_max": 1,
        "optimizer": "adam",
        "learning_rate": _RATE,
        "warmup_epochs": 0.0,
        "weight_decay": 1e-4,
    }
    config = RunConfig.from_values(asked)
    start = config.start.checkpoint
    origins = Origins(
        checkpoints.open(start) if start else None, open_checkpoint(config.distill.teacher)
    )
    config = adopt_checkpoint(config, set(asked), origins)
    if execute(config, origins):
        raise KeyboardInterrupt
    student = load_model(folder / "student")
    devices = distribution.connect(config.machine)
    views = view_config(config, student.image_channels)
    source = ManifestSource(division.test, division.class_names, student.image_channels)
    logits = Evaluator(student, views, devices, config.train.eval_batch_size).outputs(source).logits
    assert logits is not None
    return softmax(logits), steps


def as_simclr(classifier: Classifier) -> SimCLRModel:
    """A classifier with a linear head on a SimCLR encoder, as the network of `simclr-run`."""
    backbone = classifier.backbone
    if not isinstance(backbone, SimCLRBackbone) or classifier.head.hidden:
        raise ValueError("only a linear head on a SimCLR encoder can be a teacher")
    model = SimCLRModel(backbone.encoder, classifier.head.num_classes, backbone.ft_proj_selector)
    model.build()
    assert model.supervised_head is not None
    (layer,) = classifier.head.layers
    for target, value in zip(model.supervised_head.variables, layer.variables, strict=True):
        target.assign(value.value.numpy())
    return model


def _with_labels(division: Division, drawn: LabelSet) -> Manifest:
    """The training images for self-supervision, with only the labels that were drawn."""
    shown = set(drawn.rows.tolist())
    records = division.images.records
    return division.images.subset(
        r if row in shown else replace(r, label="")
        for row, r in enumerate(records)
        if r.split == "train"
    )


class Stopped(Exception):  # noqa: N818 (not an error: a signal asked for it)
    """The run was asked to stop; what is done is saved.

    Args:
        code: Exit code, 128 + the signal's number.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"stopped with exit code {code}")
        self.code = code


@dataclass(frozen=True)
class Setup:
    """The parts that all chains of a comparison share.

    Attributes:
        settings: Of the comparison.
        sizes: As planned.
        division: The images and their labels, divided.
        sources: The labelled images.
        networks: Makes settings and recipes.
        channels: Of the images.
        output: Folder of the comparison.
    """

    settings: CompareSettings
    sizes: Sizes
    division: Division
    sources: Sources
    networks: Networks
    channels: int
    output: Path


class Chain:
    """An encoder with its rows; whatever is on disk already is not done again.

    Args:
        setup: The parts that all chains share.
        encoder: The encoder.
        rows: The rows that use the encoder.
    """

    def __init__(self, setup: Setup, encoder: Encoder, rows: tuple[StrategyRow, ...]) -> None:
        self._setup, self._encoder, self._rows = setup, encoder, rows
        self._classifier: Refit | None = None

    def run(self) -> None:
        """Does what is left.

        Raises:
            Stopped: A signal asked for it in a pretraining.
        """
        todo = [row for row in self._rows if any(self._missing(row))]
        if not todo:
            log.info("%s: complete", self._encoder.name)
            return
        if self._encoder.method:
            self._pretrain()
        for row in todo:
            work = {"probe": self._probes, "full": self._fits}[row.head]
            (self._distillations if row.distill else work)(row)
        self._classifier = None
        keras.backend.clear_session()
        gc.collect()

    def _missing(self, row: StrategyRow) -> list[LabelSet]:
        sets = self._setup.division.label_sets
        return [s for s in sets if load_cell(self._setup.output, row, s) is None]

    def _pretrain(self) -> None:
        setup, encoder = self._setup, self._encoder
        what = f"pretrain-{encoder.slug}"
        if read_cost(setup.output, what)[0]:
            return
        file, images = self._unlabeled()
        config = setup.networks.pretraining(encoder, file, images)
        log.info("%s: pretraining, %d steps", encoder.name, config.train.train_steps)
        origins = open_origins(config, setup.networks.checkpoints)
        if code := execute(config, origins):
            raise Stopped(code)
        took = read_metrics(RunDir(setup.networks.folder(encoder)).metrics_file)["seconds"]
        seen = config.train.train_steps * config.train.train_batch_size
        note_cost(setup.output, what, float(np.sum(took)), seen)

    def _unlabeled(self) -> tuple[Path, int]:
        """The images of self-supervision, and their number."""
        setup, encoder = self._setup, self._encoder
        file = setup.output / "division" / "unlabelled.csv"
        if encoder.share == 1:
            return file, len(setup.division.unlabeled)
        part = pool_subset(Manifest.load(file), "train", encoder.share, setup.settings.design.seed)
        own = setup.output / "division" / f"unlabelled_{encoder.share:g}.csv"
        part.save(own)
        return own, len(part)

    def _refit(self) -> Refit:
        if self._classifier is None:
            setup = self._setup
            config, recipe = setup.networks.classifier(self._encoder)
            factor = max(row.factor for row in self._rows)
            names = setup.division.class_names
            self._classifier = Refit(config, recipe, setup.channels, names, factor)
        return self._classifier

    def _features(self, seed: int) -> np.ndarray:
        """Features of all images, float32 [n, D]; 0 for images without a label."""
        setup, encoder = self._setup, self._encoder
        name = f"{encoder.slug}_seed_{seed}" if encoder.random else encoder.slug
        file = setup.output / "features" / f"{name}.npz"
        division = setup.division
        if not file.is_file():
            began = time.perf_counter()
            sources, features_of = setup.sources, self._features_of(seed)
            features = np.concatenate([features_of(s) for s in (sources.pool, sources.test)])
            rows = np.concatenate([sources.pool_rows, sources.test_rows])
            file.parent.mkdir(exist_ok=True)
            Embeddings(features, self._labels()[rows], rows).save(file)
            note_cost(setup.output, f"features-{name}", time.perf_counter() - began, len(rows))
        known = Embeddings.load(file)
        whole = np.zeros((len(division.images), known.features.shape[1]), np.float32)
        whole[known.indices] = known.features
        return whole

    def _features_of(self, seed: int) -> Callable[[ManifestSource], np.ndarray]:
        """Returns a function from images to their features, float32 [n, D]."""
        setup = self._setup
        if self._encoder.is_floor:
            devices = connect(MachineSettings())
            return partial(
                raw_pixels, devices=devices, central_crop=setup.settings.augment.central_crop
            )
        refit = self._refit()
        refit.start(seed)
        return refit.features

    def _majority(self, row: StrategyRow) -> None:
        division = self._setup.division
        labels, classes = self._labels(), len(division.class_names)
        for drawn in self._missing(row):
            said = majority(labels[drawn.rows], classes, len(division.test_rows))
            self._keep(row, drawn, 0, 0.0, 0, said)

    def _labels(self) -> np.ndarray:
        division = self._setup.division
        return division.images.label_indices(division.class_names)

    def _probes(self, row: StrategyRow) -> None:
        setup, division = self._setup, self._setup.division
        if self._encoder.name == MAJORITY:
            self._majority(row)
            return
        labels = self._labels()
        test, known = division.test_rows, {}
        for drawn in self._missing(row):
            seed = drawn.seed if self._encoder.random else setup.settings.design.seed
            if seed not in known:
                known = {seed: self._features(seed)}
            features, began = known[seed], time.perf_counter()
            probe = fit_linear_probe(
                features[drawn.rows],
                labels[drawn.rows],
                num_classes=len(division.class_names),
                seed=drawn.seed,
                balanced=setup.settings.classes_count_the_same,
            )
            said = probe.predict_proba(features[test])
            self._keep(row, drawn, 0, time.perf_counter() - began, 0, said)

    def _fits(self, row: StrategyRow) -> None:
        sources, refit = self._setup.sources, self._refit()
        for drawn in self._missing(row):
            began = time.perf_counter()
            refit.start(drawn.seed)
            refit.fit(sources.limit(drawn.rows), _order_seed(drawn))
            said = refit.probabilities(sources.test)
            seen = refit.steps * self._setup.sizes.finetune_batch
            self._keep(row, drawn, refit.steps, time.perf_counter() - began, seen, said)

    def _distillations(self, row: StrategyRow) -> None:
        setup, refit = self._setup, self._refit()
        division, sources = setup.division, setup.sources
        for drawn in self._missing(row):
            began = time.perf_counter()
            refit.start(drawn.seed)
            refit.fit(sources.limit(drawn.rows), _order_seed(drawn))
            said, steps = distil(
                refit.model,
                setup.networks.classifier(self._encoder)[0],
                division,
                drawn,
                setup.output / "encoders" / row.slug / drawn.name,
                setup.networks.checkpoints,
            )
            seen = (refit.steps + steps) * setup.sizes.finetune_batch
            self._keep(row, drawn, refit.steps + steps, time.perf_counter() - began, seen, said)

    def _keep(
        self,
        row: StrategyRow,
        drawn: LabelSet,
        steps: int,
        seconds: float,
        seen: int,
        said: np.ndarray,
    ) -> None:
        labels = self._labels()
        right = float((said.argmax(axis=1) == labels[self._setup.division.test_rows]).mean())
        log.info(
            "%s, %.3g of the labels (%d), fold %d: accuracy %.3f, %.1f s",
            row.name, drawn.fraction, len(drawn.rows), drawn.fold, right, seconds,
        )  # fmt: skip
        cell = Cell(
            row.slug, drawn.fold, drawn.seed, drawn.fraction, len(drawn.rows), steps, seconds,
            seen, said.astype(np.float64),
        )  # fmt: skip
        save_cell(self._setup.output, row, drawn, cell)


def _order_seed(drawn: LabelSet) -> int:
    """Seed of order and augmentation: another one in every fold."""
    return 1000 * drawn.seed + drawn.fold
