"""From sources to the batches that replicas consume.

Every batch is a pure function of (run seed, step): which images, in which order, with which draws
of the augmentation. So a run that goes on from step N sees what it would have seen, and the rows
of a global batch are the same on one worker or on many.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from data_prep.augment.contact_sheet import tiled
from data_prep.augment.draws import small_crop_seed
from data_prep.augment.views import (
    ViewConfig,
    device_views,
    evaluation_image,
    example_seed,
    host_views,
)
from data_prep.errors import UserError
from data_prep.sources.source import PARALLEL_CALLS, Source
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.data_service import check_portable, connect
from simclr_tf.training.distribution import Devices

Batch = dict[str, tf.Tensor]
Batches: TypeAlias = Iterable[Batch]  # a data set, distributed or not

PREFETCH = 4  # batches
PREFETCH_LARGE = 1  # of those that a step takes long for and that fill the memory


def distributed(
    devices: Devices, pipeline: Callable[[tf.distribute.InputContext], tf.data.Dataset]
) -> Batches:
    """A pipeline for the replicas; on a single CPU device the data set itself.

    A released iterator waits for tf.data's autotuner, which sleeps longer and longer, up to a
    minute. Pipelines run without it here; the data sets that TensorFlow puts between a pipeline
    and its replicas, to bring batches to a device, always have one.
    """

    def untuned(context: tf.distribute.InputContext) -> tf.data.Dataset:
        options = tf.data.Options()
        options.autotune.enabled = False
        return pipeline(context).with_options(options)

    if isinstance(devices.strategy, tf.distribute.OneDeviceStrategy) and devices.kind == "CPU":
        return untuned(tf.distribute.InputContext())
    return devices.strategy.distribute_datasets_from_function(untuned)


def local_batch_size(batch_size: int, devices: Devices, flag: str) -> int:
    """Images per replica of a global batch.

    Raises:
        UserError: The batch cannot be shared out evenly.
    """
    if batch_size % devices.num_replicas:
        raise UserError(
            f"must be a multiple of the {devices.num_replicas} replicas",
            setting=flag,
            value=batch_size,
        )
    return batch_size // devices.num_replicas


MakeExample: TypeAlias = Callable[[tf.Tensor, tf.Tensor], Batch]
MakeImage: TypeAlias = Callable[[tf.Tensor], tf.Tensor]


def view_maker(views: ViewConfig) -> MakeExample:
    """Makes `views` [V, S, S, C] and `draws` [V, K] of an image [H, W, C] and its seed [2]."""

    def make(image: tf.Tensor, seed: tf.Tensor) -> Batch:
        made, draws = host_views(image, seed, views)
        return {"views": made, "draws": draws}

    return make


def training_batches(
    source: Source,
    views: ViewConfig | MakeExample,
    devices: Devices,
    batch_size: int,
    seed: int,
    start_step: int,
    data_service: str = "",
    prefetch: int = PREFETCH,
) -> Batches:
    """Endless training batches, from a given step on.

    Args:
        source: The training images.
        views: The augmentation; or what makes the tensors of an example out of a decoded image and
            a seed, int64 [2], that belongs to run, epoch and image.
        devices: The devices that consume the batches.
        batch_size: Images of a global batch.
        seed: The run's seed.
        start_step: Steps already taken.
        data_service: Address of a tf.data service whose workers decode and make the views; empty =
            here. The batches are the same.
        prefetch: Batches to make ahead.

    Returns:
        A distributed data set of dictionaries, per replica with b = batch_size / replicas images:
        `views` [b, V, S, S, C] of the source's dtype and `draws` [b, V, K] float32 (or what was
        made instead), `label` [b] int64 (-1 = none) and `index` [b] int64.

    Raises:
        UserError: The batch cannot be shared out, or the service not be used.
    """
    per_replica = local_batch_size(batch_size, devices, "train_batch_size")
    make = view_maker(views) if isinstance(views, ViewConfig) else views
    remote = None
    if data_service:
        check_portable(source)
        remote = connect(data_service)

    def example(element: Batch) -> Batch:
        own_seed = example_seed(seed, element["epoch"], element["index"])
        made = make(source.decode(element), own_seed)
        return {**made, "label": element["label"], "index": element["index"]}

    def batches(shard: tuple[int, int], steps: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        elements = source.elements(
            seed=seed,
            shuffle=True,
            start=start_step * batch_size,
            batch_size=batch_size,
            shard=shard,
        )
        parallel = PARALLEL_CALLS
        if remote:
            first, every = steps
            elements = elements.batch(per_replica, drop_remainder=True).shard(every, first)
            elements = elements.unbatch()
            parallel = tf.data.AUTOTUNE  # the worker's processors are not those of this machine
        mapped = elements.map(example, num_parallel_calls=parallel, deterministic=True)
        return mapped.batch(per_replica, drop_remainder=True).prefetch(prefetch)

    def pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        shard = (context.input_pipeline_id, context.num_input_pipelines)
        if not remote:
            return batches(shard)
        collected = remote.collect(lambda worker, workers: batches(shard, (worker, workers)))
        return collected.prefetch(prefetch)

    return distributed(devices, pipeline)


def evaluation_batches(
    source: Source,
    views: ViewConfig | MakeImage,
    devices: Devices,
    batch_size: int,
    seed: int = 0,
    max_steps: int = 0,
    view: Callable[[tf.Tensor, Any], tf.Tensor] = evaluation_image,
    fixed_size: bool = False,
) -> tuple[Batches, int]:
    """One pass over a source, padded to whole batches, of which none is larger than it need be.

    Args:
        source: The images to score.
        views: Size and central crop of the run; what `view` gets beside the image.
        devices: The devices that consume the batches.
        batch_size: Most images of a global batch; rounded up to a multiple of the replicas.
        seed: The run's seed, which labels drawn at random depend on.
        max_steps: Global batches at most; 0 = all.
        view: Makes [S, S, C], or [V, S, S, C], of an image [H, W, C]; the central crop of
            evaluation unless given.
        fixed_size: Whether every batch has `batch_size` rows, however few the images are.

    Returns:
        The distributed data set, per replica `image` [b, (V,) S, S, C], `label` [b], `index` [b],
        where padding has index -1; and the number of steps.
    """
    per_replica = -(-batch_size // devices.num_replicas)
    steps = -(-source.num_examples // (per_replica * devices.num_replicas))
    if max_steps and max_steps < steps:
        steps = max_steps
    elif not fixed_size:  # as many steps of equal batches, which are padded least
        per_replica = -(-source.num_examples // (steps * devices.num_replicas))
    batch_size = per_replica * devices.num_replicas

    def example(element: Batch) -> Batch:
        image = view(source.decode(element), views)
        return {"image": image, "label": element["label"], "index": element["index"]}

    def pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        shard = (context.input_pipeline_id, context.num_input_pipelines)
        elements = source.elements(
            seed=seed, shuffle=False, start=0, batch_size=batch_size, shard=shard
        )
        images = elements.map(example, num_parallel_calls=PARALLEL_CALLS, deterministic=True)
        batches = images.batch(per_replica).map(_pad_to(per_replica))
        padding = tf.data.Dataset.range(1).map(
            lambda _: _padding(batches.element_spec, per_replica)
        )
        rows = steps * devices.num_replicas // context.num_input_pipelines
        return batches.concatenate(padding.repeat()).take(rows).prefetch(PREFETCH)

    return distributed(devices, pipeline), steps


def _pad_to(size: int) -> Callable[[Batch], Batch]:
    def pad(batch: Batch) -> Batch:
        missing = size - tf.shape(batch["index"])[0]

        def grow(name: str, value: tf.Tensor) -> tf.Tensor:
            paddings = [[0, missing]] + [[0, 0]] * (len(value.shape) - 1)
            fill = tf.constant(-1 if name == "index" else 0, value.dtype)
            padded = tf.pad(value, paddings, constant_values=fill)
            return tf.ensure_shape(padded, [size, *value.shape[1:]])

        return {name: grow(name, value) for name, value in batch.items()}

    return pad


def _padding(spec: dict[str, tf.TensorSpec], size: int) -> Batch:
    def blank(name: str, tensor: tf.TensorSpec) -> tf.Tensor:
        shape = [size, *tensor.shape[1:]]
        return tf.fill(shape, tf.constant(-1 if name == "index" else 0, tensor.dtype))

    return {name: blank(name, tensor) for name, tensor in spec.items()}


def with_small_crops(views: ViewConfig, small: ViewConfig | None) -> ViewConfig | MakeExample:
    """Adds small crops to what `training_batches` makes of an image, under names of their own.

    Args:
        views: The augmentation.
        small: That of the small crops; None = there are none, and the views are all.

    Returns:
        Makes, beside `views` and `draws`, `small_views` [n, s, s, C] and `small_draws` [n, K].
    """
    if small is None:
        return views
    large_ones, small_ones = view_maker(views), view_maker(small)

    def make(image: tf.Tensor, seed: tf.Tensor) -> Batch:
        crops = small_ones(image, small_crop_seed(seed))
        return {**large_ones(image, seed), **{f"small_{k}": v for k, v in crops.items()}}

    return make


_IMAGES = 8


def view_sheet(source: Source, views: ViewConfig, config: RunConfig) -> np.ndarray:
    """The views of the first images that training sees.

    Args:
        source: The training images.
        views: The augmentation.
        config: Its `machine.seed` and `train.train_batch_size` fix which images come first.

    Returns:
        A picture [H, W, 3], uint8: one column an image, one row a view.
    """
    return tiled(sample_views(source, views, config))


def sample_views(source: Source, views: ViewConfig, config: RunConfig) -> np.ndarray:
    """The views of up to eight training images: [n, V, S, S, C], float32 in [0, 1]."""
    batch_size = config.train.train_batch_size
    elements = source.elements(
        seed=config.machine.seed, shuffle=True, start=0, batch_size=batch_size
    )
    images, draws = [], []
    for element in elements.take(min(_IMAGES, batch_size)):
        seed = example_seed(config.machine.seed, element["epoch"], element["index"])
        image, draw = host_views(source.decode(element), seed, views)
        images.append(image)
        draws.append(draw)
    return device_views(tf.stack(images), tf.stack(draws), views).numpy()
