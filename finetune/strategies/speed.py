"""Timing a few steps of everything that a comparison does, so that sizes can be planned."""

import gc
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from data_prep.manifest import Manifest
from data_prep.sources import ManifestSource
from finetune.strategies.distil import FACTOR
from finetune.strategies.division import Division
from finetune.strategies.named import UNTRAINED, Encoder, Row
from finetune.strategies.networks import Networks
from finetune.strategies.planning import ChainWork, Fits, Speed
from finetune.strategies.refit import Refit
from finetune.strategies.sources import Sources
from simclr_tf import distribution
from simclr_tf.config import RunConfig
from simclr_tf.evaluation.linear_probe import fit_linear_probe
from simclr_tf.training.build import build_seeded, build_step, small_view_config, view_config
from simclr_tf.training.inputs import PREFETCH, training_batches
from simclr_tf.training.small_crops import with_small_crops

_STEPS = 6
_FEW_STEPS, _MANY_STEPS = 6, 24  # of fine-tuning: their difference is free of what comes before
_FILES = 0.1  # seconds a fit for its file
_IMAGES = 64
_AROUND_PRETRAINING = 3.0  # seconds: folder, checkpoints, export
_DISTILLATION_START = 12.0  # seconds a student: its graph is traced anew
_DISTILLATION_COST = 2  # a step of a student, with its teacher, in steps of fine-tuning


class Stopwatch:
    """Measures chains at given sizes.

    Args:
        networks: How things are built; their folder is a temporary one.
        division: The images.
        sources: The labelled ones.
        sources: The labelled ones.
        channels: Of the images.
        folder: For files.
    """

    def __init__(
        self,
        networks: Networks,
        division: Division,
        sources: Sources,
        channels: int,
        folder: Path,
    ) -> None:
        self._networks, self._division, self._sources = networks, division, sources
        self._channels, self._folder = channels, folder
        self._classifiers: dict[tuple[str, bool], tuple[Speed, Speed | None, float]] = {}

    def chain(self, encoder: Encoder, rows: Sequence[Row], batch: int, seeds: int) -> ChainWork:
        """The work of a chain, with its speeds.

        Args:
            encoder: The encoder; its weights do not matter.
            rows: What stands on it.
            batch: Images of a batch of pretraining.
            seeds: Of the comparison.
        """
        pretrain = self._pretraining(encoder) if encoder.method else None
        fitted = [row for row in rows if row.head == "full"]
        image, finetune, rest = self._classifier(encoder, bool(fitted))
        return ChainWork(
            encoder.name,
            pretrain,
            image,
            finetune,
            sum(row.head == "probe" for row in rows),
            tuple(_fits(row, rest) for row in fitted),
            seeds if encoder.random else 1,
            encoder.share * len(self._division.unlabelled) / batch,
            encoder.network != "own",
        )

    def _pretraining(self, encoder: Encoder) -> Speed:
        images = self._division.unlabelled
        manifest = self._folder / "unlabelled.csv"
        if not manifest.exists():
            images.save(manifest)
        config = self._networks.pretraining(encoder, manifest, len(images))
        began = time.perf_counter()
        batches, step = _pretraining_step(config, images)
        # While the graph was traced, batches were made ahead: those would count as free.
        step(batches, 1)
        step(batches, PREFETCH + 1)
        first = time.perf_counter()
        step(batches, _STEPS)
        last = time.perf_counter()
        _clear()
        return Speed(first - began + _AROUND_PRETRAINING, (last - first) / _STEPS)

    def _classifier(self, encoder: Encoder, fits: bool) -> tuple[Speed, Speed | None, float]:
        # Every own network is of one kind, whatever its weights.
        stand_in = Encoder(
            UNTRAINED if encoder.network == "own" else encoder.network, encoder.network
        )
        for key in ((stand_in.name, True), (stand_in.name, fits)):
            if key in self._classifiers:
                return self._classifiers[key]
        began = time.perf_counter()
        config, recipe = self._networks.classifier(stand_in)
        refit = Refit(config, recipe, self._channels, self._division.class_names)
        refit.start(0)
        rows = self._division.label_sets[-1].rows
        few = self._division.take(rows[:_IMAGES])
        sample = ManifestSource(few, self._division.class_names, self._channels)
        refit.features(sample)
        first = time.perf_counter()
        refit.features(sample)
        second = time.perf_counter()
        # A batch is filled up: it takes as long for fewer images.
        image = Speed(first - began, (second - first) / _IMAGES)
        finetune, rest = None, 0.0
        if fits:
            took = [self._fit(refit, rows, steps) for steps in (1, _FEW_STEPS, _MANY_STEPS)]
            step = max((took[2] - took[1]) / (_MANY_STEPS - _FEW_STEPS), 1e-4)
            # Data set, iterator, copies of the weights: what a fit takes whatever its steps.
            rest = max(took[1] - _FEW_STEPS * step, 0.0) + _FILES
            finetune = Speed(took[0] + first - began, step)
        self._classifiers[stand_in.name, fits] = image, finetune, rest
        _clear()
        return image, finetune, rest

    def _fit(self, refit: Refit, rows: np.ndarray, steps: int) -> float:
        began = time.perf_counter()
        refit.start(0)
        refit.fit(self._sources.limit(rows), 0, steps)
        return time.perf_counter() - began


def _fits(row: Row, rest: float) -> Fits:
    if not row.distill:
        return Fits(row.factor, rest)
    factor = row.factor * (1 + FACTOR * _DISTILLATION_COST)
    return Fits(factor, rest + _DISTILLATION_START)


def _pretraining_step(config: RunConfig, images: Manifest):  # type: ignore[no-untyped-def]
    devices = distribution.connect(config.machine)
    source = ManifestSource(images)
    model, parts = build_seeded(config, devices, source.channels, 0, source.num_examples)
    step = build_step(config, devices, model, parts, source.channels)
    views = with_small_crops(
        view_config(config, source.channels), small_view_config(config, source.channels)
    )
    batches = training_batches(
        source, views, devices, config.train.train_batch_size, config.machine.seed, 0
    )
    return iter(batches), step.run


def time_probe(images: int, dim: int, classes: int) -> float:
    """Seconds of fitting a probe: on noise, which takes as long as features do.

    Args:
        images: That it is fitted to.
        dim: Of the features.
        classes: At most as many as there are images.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(images) % classes
    features = rng.normal(size=(images, dim)) + labels[:, None]
    began = time.perf_counter()
    fit_linear_probe(features, labels, num_classes=classes)
    return time.perf_counter() - began


def _clear() -> None:
    keras.backend.clear_session()
    gc.collect()
