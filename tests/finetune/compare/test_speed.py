"""Timing that has no time left guesses, and does not fail."""

import time
from pathlib import Path
from typing import Any

import pytest

from data_prep.manifest.manifest import Manifest, Record
from finetune.compare.budget import Sizes, Speed
from finetune.compare.images import Division
from finetune.compare.plan import by_encoder
from finetune.compare.speed import Stopwatch
from finetune.compare.strategies import parse_strategies

SIZES = Sizes(48, 0.25, 64, 100, 128, 20, 32)


def stopwatch(deadline: float) -> Stopwatch:
    images = Manifest(tuple(Record(f"{i}.png", "a", "train") for i in range(200)), "/x")
    nothing: Any = None  # whatever is measured with would fail
    return Stopwatch(nothing, Division(images, images, ()), nothing, 1, Path(), deadline)


def test_after_the_deadline_everything_is_estimated_and_nothing_timed() -> None:
    watch = stopwatch(time.perf_counter())
    rows = parse_strategies(["simclr", "moco", "scratch", "untrained", "imagenet_supervised"])
    chains = {e.name: watch.chain(e, own, SIZES, 1) for e, own in by_encoder(rows).items()}
    assert all(c.image.step > 0 for c in chains.values())
    own, foreign = chains["untrained"].finetune, chains["imagenet_supervised"].finetune
    assert own is not None
    assert foreign is not None
    assert foreign.step > 5 * own.step
    assert chains["simclr"].pretrain is not None
    assert chains["simclr"].pretrain.step > own.step


def test_a_method_that_was_not_timed_is_estimated_by_one_that_was() -> None:
    watch = stopwatch(time.perf_counter())
    watch._pretrainings.append(Speed(9.0, 0.2))
    ((encoder, rows),) = by_encoder(parse_strategies(["moco:probe"])).items()
    pretrain = watch.chain(encoder, rows, SIZES, 1).pretrain
    assert pretrain is not None
    assert pretrain.start == 9.0
    assert pretrain.step == pytest.approx(0.3)
