"""Timing a few steps of everything that a comparison does, so that sizes can be planned."""

import gc
import math
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from data_prep.sources.manifest_source import ManifestSource
from finetune.compare.budget import Candidate, ChainWork, Fits, Sizes, Speed
from finetune.compare.chain import FACTOR
from finetune.compare.images import Division, Sources
from finetune.compare.recipes import Networks
from finetune.compare.strategies import UNTRAINED, Encoder, StrategyRow
from finetune.refit import Refit
from simclr_tf.evaluation.linear_probe import fit_linear_probe
from simclr_tf.training.batches import PREFETCH
from simclr_tf.training.speed import pretraining_steps

_STEPS = 6
_FEW_STEPS, _SOME_STEPS, _MANY_STEPS = 2, 8, 24
"""Of fine-tuning: the difference of two fits is free of what comes before their steps."""

_LONG_FIT = 2.0  # seconds: so long a fit of some steps is measured well enough
_PIECE = 8.0  # seconds: with less than these before the deadline nothing is begun to be timed
_GUESSED_STEP = 0.3  # seconds of a step of pretraining at 48 pixels, width 0.25, on a slow machine
_GUESSED_START = 15.0
_FOREIGN = 30  # a network with ImageNet weights takes so many times as long as one's own
_OTHER_METHOD = 1.5  # a step of a method that was not timed, in steps of one that was
_FILES = 0.1  # seconds a fit for its file
_IMAGES = 64
_AROUND_PRETRAINING = 3.0  # seconds: folder, checkpoints, export
_DISTILLATION_START = 12.0  # seconds a student: its graph is traced anew
_DISTILLATION_COST = 2  # a step of a student, with its teacher, in steps of fine-tuning


class Stopwatch:
    """Measures chains at given sizes.

    Args:
        networks: Makes settings and recipes; its folder is a temporary one.
        division: The images.
        sources: The labelled ones.
        channels: Of the images.
        folder: For files.
        deadline: Of `time.perf_counter()`: what is not timed by then is estimated.
    """

    def __init__(
        self,
        networks: Networks,
        division: Division,
        sources: Sources,
        channels: int,
        folder: Path,
        deadline: float = math.inf,
    ) -> None:
        self._deadline = deadline
        self._pretrainings: list[Speed] = []
        self._networks, self._division, self._sources = networks, division, sources
        self._channels, self._folder = channels, folder
        self._classifiers: dict[tuple[str, bool], tuple[Speed, Speed | None, float]] = {}

    def chain(
        self, encoder: Encoder, rows: Sequence[StrategyRow], sizes: Sizes, seeds: int
    ) -> ChainWork:
        """The work of a chain, with its speeds.

        Args:
            encoder: The encoder; its weights do not matter.
            rows: The rows that use the encoder.
            sizes: That are timed.
            seeds: Of the comparison.
        """
        pretrain = self._pretraining(encoder, sizes) if encoder.method else None
        fitted = [row for row in rows if row.head == "full"]
        image, finetune, rest = self._classifier(encoder, bool(fitted), sizes)
        return ChainWork(
            encoder.name,
            pretrain,
            image,
            finetune,
            sum(row.head == "probe" for row in rows),
            tuple(_fits(row, rest) for row in fitted),
            seeds if encoder.random else 1,
            encoder.share * len(self._division.unlabeled) / sizes.pretrain_batch,
            encoder.network != "own",
        )

    def _no_time(self) -> bool:
        return time.perf_counter() + _PIECE > self._deadline

    def _pretraining(self, encoder: Encoder, sizes: Sizes) -> Speed:
        if self._no_time():
            return self._guessed_pretraining(encoder, sizes)
        images = self._division.unlabeled
        manifest = self._folder / "unlabelled.csv"
        if not manifest.exists():
            images.save(manifest)
        config = self._networks.pretraining(encoder, manifest, len(images))
        began = time.perf_counter()
        batches, step = pretraining_steps(config, images)
        # While the graph was traced, batches were made ahead: those would count as free.
        step(batches, 1)
        step(batches, PREFETCH + 1)
        first = time.perf_counter()
        step(batches, _STEPS)
        last = time.perf_counter()
        _clear()
        speed = Speed(first - began + _AROUND_PRETRAINING, (last - first) / _STEPS)
        if encoder.network == "own":
            self._pretrainings.append(speed)
        return speed

    def _guessed_pretraining(self, encoder: Encoder, sizes: Sizes) -> Speed:
        """Estimates the speed from a pretraining that was timed, or else from the sizes."""
        if self._pretrainings:
            known = max(self._pretrainings, key=lambda speed: speed.step)
            speed = Speed(known.start, known.step * _OTHER_METHOD)
        else:
            ratio = _cost(sizes) / Candidate(48, 0.25).cost * sizes.pretrain_batch / 128
            speed = Speed(_GUESSED_START, _GUESSED_STEP * ratio)
        return speed if encoder.network == "own" else Speed(speed.start, speed.step * _FOREIGN)

    def _guessed_classifier(
        self, own: bool, sizes: Sizes, fits: bool
    ) -> tuple[Speed, Speed | None, float]:
        """Estimates speeds from that of pretraining, which shows every image twice."""
        known = self._guessed_pretraining(Encoder(UNTRAINED, "own"), sizes)
        image = known.step / sizes.pretrain_batch / 2 * (1 if own else _FOREIGN)
        step = Speed(known.start, image * sizes.finetune_batch) if fits else None
        return Speed(known.start / 2, image / 2), step, 0.5

    def _classifier(
        self, encoder: Encoder, fits: bool, sizes: Sizes
    ) -> tuple[Speed, Speed | None, float]:
        # Every own network is of one kind, whatever its weights.
        stand_in = Encoder(
            UNTRAINED if encoder.network == "own" else encoder.network, encoder.network
        )
        for key in ((stand_in.name, True), (stand_in.name, fits)):
            if key in self._classifiers:
                return self._classifiers[key]
        if self._no_time():
            return self._guessed_classifier(encoder.network == "own", sizes, fits)
        began = time.perf_counter()
        config, recipe = self._networks.classifier(stand_in)
        refit = Refit(config, recipe, self._channels, self._division.class_names)
        refit.start(0)
        rows = self._division.label_sets[-1].rows
        sample_images = self._division.take(rows[:_IMAGES])
        sample = ManifestSource(sample_images, self._division.class_names, self._channels)
        refit.features(sample)
        first = time.perf_counter()
        refit.features(sample)
        second = time.perf_counter()
        # A batch is filled up: it takes as long for fewer images.
        image = Speed(first - began, (second - first) / _IMAGES)
        finetune, rest = None, 0.0
        if fits and self._no_time():
            _, finetune, rest = self._guessed_classifier(encoder.network == "own", sizes, fits)
        elif fits:
            start = self._fit(refit, rows, 1)
            few, most = self._fit(refit, rows, _FEW_STEPS), _SOME_STEPS
            many = self._fit(refit, rows, most)
            if many < _LONG_FIT:
                most = _MANY_STEPS
                many = self._fit(refit, rows, most)
            step = max((many - few) / (most - _FEW_STEPS), 1e-4)
            # Data set, iterator, copies of the weights: what a fit takes whatever its steps.
            rest = max(few - _FEW_STEPS * step, 0.0) + _FILES
            finetune = Speed(start + first - began, step)
        self._classifiers[stand_in.name, fits] = image, finetune, rest
        _clear()
        return image, finetune, rest

    def _fit(self, refit: Refit, rows: np.ndarray, steps: int) -> float:
        began = time.perf_counter()
        refit.start(0)
        refit.fit(self._sources.limit(rows), 0, steps)
        return time.perf_counter() - began


def _cost(sizes: Sizes) -> float:
    return Candidate(sizes.image_size, sizes.width_multiplier).cost


def _fits(row: StrategyRow, rest: float) -> Fits:
    if not row.distill:
        return Fits(row.factor, rest)
    factor = row.factor * (1 + FACTOR * _DISTILLATION_COST)
    return Fits(factor, rest + _DISTILLATION_START)


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
