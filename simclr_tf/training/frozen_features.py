"""Training on features that the frozen beginning of a network gives once for every image."""

import logging
import time
from itertools import chain

import numpy as np
import tensorflow as tf

from data_prep.augment.views import ViewConfig, host_views
from data_prep.errors import UserError
from data_prep.phrases import format_seconds
from data_prep.sources.order import Sampler, ordered_elements
from data_prep.sources.source import Source
from simclr_tf.models.architectures import NUM_GROUPS
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.training.batches import (
    PREFETCH,
    Batch,
    Batches,
    distributed,
    local_batch_size,
)
from simclr_tf.training.distribution import Devices
from simclr_tf.training.evaluator import Evaluator, ImageOutputs

log = logging.getLogger(__name__)

BUDGET = 4 * 2**30  # bytes


def frozen_features(
    model: SimCLRModel,
    source: Source,
    views: ViewConfig,
    devices: Devices,
    batch_size: int,
    first_stage: int,
    seed: int = 0,
) -> ImageOutputs:
    """Computes the outputs of the stages before `first_stage` for every image of a source.

    Args:
        model: The network, those stages frozen.
        source: The training images.
        views: Size and central crop; nothing of it may be random.
        devices: The devices of the run.
        batch_size: Images of a pass.
        first_stage: 1 to 4: the outputs of the stage before; 5: of the average pool.
        seed: The run's seed, which labels drawn at random depend on.

    Returns:
        The features, float32 [n, h, w, c], or [n, D] behind the average pool, and the labels of
        every image.

    Raises:
        UserError: They would take more than `BUDGET`.
    """
    last = first_stage - 1
    names = {0: "initial_max_pool", NUM_GROUPS: "final_avg_pool"}
    endpoint = names.get(last, f"block_group{last}")

    def forward(images: tf.Tensor) -> dict[str, tf.Tensor]:
        ends = model.encoder.backbone().endpoints(
            tf.clip_by_value(images, 0.0, 1.0), training=False
        )
        return {"features": tf.cast(ends[endpoint], tf.float32)}

    def view(image: tf.Tensor) -> tf.Tensor:
        """The view of a training step in which nothing is random."""
        return host_views(image, tf.zeros([2], tf.int64), views)[0][0]

    began = time.perf_counter()
    evaluator = Evaluator(forward, view, devices, batch_size, seed)
    batches = evaluator.batches(source)
    first = next(batches)
    # Filled as they come: joining all in the end would take twice the memory.
    images = source.num_examples
    room = _room(images, first["features"].shape[1:], endpoint)
    known = ImageOutputs(np.arange(images), np.empty(images, np.int64), room, None)
    for rows in chain([first], batches):
        _put(known, rows)
    log.info(
        "computed %s of %d images once, %.0f MiB, in %s",
        endpoint,
        source.num_examples,
        known.features.nbytes / 2**20,
        format_seconds(time.perf_counter() - began),
    )
    return known


def _put(known: ImageOutputs, rows: dict[str, np.ndarray]) -> None:
    real = rows["index"] >= 0
    known.features[rows["index"][real]] = rows["features"][real]
    known.label[rows["index"][real]] = rows["label"][real]


def _room(images: int, shape: tuple[int, ...], endpoint: str) -> np.ndarray:
    size = 4 * images * int(np.prod(shape))
    if size > BUDGET:
        raise UserError(
            f"{endpoint} of {images} images takes {size / 2**30:.1f} GiB, and "
            f"{BUDGET / 2**30:.0f} are allowed; freeze more blocks, or leave the flag out",
            setting="cache_frozen",
        )
    return np.empty((images, *shape), np.float32)


def feature_batches(
    known: ImageOutputs,
    devices: Devices,
    batch_size: int,
    seed: int,
    start_step: int,
    sampler: Sampler | None = None,
) -> Batches:
    """Endless training batches of features, in the order that images would have.

    Args:
        known: The features of the training images.
        devices: The devices that consume the batches.
        batch_size: Rows of a global batch.
        seed: The run's seed.
        start_step: Steps already taken.
        sampler: Which row comes at which position; None = all in turn, shuffled.

    Returns:
        Dictionaries, per replica with b rows: `features` [b, ...], `label` [b] and `index` [b].
    """
    per_replica = local_batch_size(batch_size, devices, "train_batch_size")

    def pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        with tf.device("CPU:0"):
            table = tf.constant(known.features)
            columns = {"label": tf.constant(known.label)}
        elements = ordered_elements(
            len(known.label),
            columns,
            seed=seed,
            shuffle=True,
            start=start_step * batch_size,
            batch_size=batch_size,
            shard=(context.input_pipeline_id, context.num_input_pipelines),
            sampler=sampler,
        )

        def gather(batch: Batch) -> Batch:
            rows = tf.gather(table, batch["index"])
            return {"features": rows, "label": batch["label"], "index": batch["index"]}

        return elements.batch(per_replica, drop_remainder=True).map(gather).prefetch(PREFETCH)

    return distributed(devices, pipeline)
