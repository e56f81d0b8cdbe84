"""Steps of a pretraining without its run folder, to be timed."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from data_prep.manifest.manifest import Manifest
from data_prep.sources.manifest_source import ManifestSource
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training import distribution
from simclr_tf.training.batches import training_batches, with_small_crops
from simclr_tf.training.build import build_seeded, build_step, small_view_config, view_config

Steps = Callable[[Iterator[Any], int], dict[str, np.ndarray]]
"""Takes some steps over batches, see `TrainStep.run`."""


def pretraining_steps(config: RunConfig, images: Manifest) -> tuple[Iterator[Any], Steps]:
    """The batches of a pretraining, and the function that takes steps over them.

    While a graph is traced, `PREFETCH` batches are made ahead: let them be used up before the time
    is taken.

    Args:
        config: All settings.
        images: The training images.
    """
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
