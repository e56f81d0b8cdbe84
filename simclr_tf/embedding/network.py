"""What makes features of images: an encoder, one of its layers, and how it is shown images."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.manifest.identity import image_name
from data_prep.manifest.manifest import Manifest
from simclr_tf.checkpoints.load import load_model
from simclr_tf.checkpoints.preprocessing import evaluation_views
from simclr_tf.config.sections import MachineSettings
from simclr_tf.embedding.floors import FloorFeatures
from simclr_tf.embedding.settings import FeatureSettings
from simclr_tf.embedding.shards import Shards
from simclr_tf.evaluation.features import l2_normalize
from simclr_tf.models.copies import copy_in
from simclr_tf.models.fingerprint import variables_hash
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.training import distribution
from simclr_tf.training.evaluator import Evaluator
from simclr_tf.training.floors import flat_pixels, some_features
from simclr_tf.training.imagewise import Imagewise
from simclr_tf.training.memory import (
    Load,
    check_memory,
    count_activations,
    memory_here,
    variable_bytes,
)

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

_MOST_OF_FLOORS = 4000  # images: more change little
_CHUNK = 512  # images between two lines of progress


@dataclass(frozen=True)
class Network:
    """An encoder that was opened.

    Attributes:
        model: With its weights.
        record: How its images were prepared.
        sha256: Hash of its weights.
        feature_dim: Length of the features of the layer that is taken.
    """

    model: SimCLRModel
    record: dict[str, Any]
    sha256: str
    feature_dim: int


def open_network(settings: FeatureSettings) -> Network:
    """Opens the encoder that the settings name.

    Raises:
        UserError: There is none, or it has no such layer.
    """
    model = load_model(settings.encoder, ema=settings.ema)
    record = model.encoder.preprocessing
    digest = variables_hash(model.variables)
    if settings.precision == "bfloat16":
        model = copy_in(model, "mixed_bfloat16")
    size, channels = record["image_size"], record["channels"]
    layers = model(tf.zeros([1, size, size, channels]), training=False)
    if settings.endpoint not in layers:
        raise UserError(f"--endpoint={settings.endpoint}: the network has {', '.join(layers)}")
    return Network(model, record, digest, layers[settings.endpoint].shape[-1])


class Featuriser:
    """Makes features of images; its graph is traced once.

    Args:
        network: The encoder.
        settings: Which features.
    """

    def __init__(self, network: Network, settings: FeatureSettings) -> None:
        self._settings, self._dim = settings, network.feature_dim
        model, endpoint = network.model, settings.endpoint

        def forward(images: tf.Tensor) -> dict[str, tf.Tensor]:
            layer = tf.cast(model(images, training=False)[endpoint], tf.float32)
            return {"features": tf.reduce_mean(layer, [1, 2]) if len(layer.shape) == 4 else layer}

        devices = distribution.connect(MachineSettings(distribute="one_device"))
        views, batch_size = evaluation_views(network.record), settings.eval_batch_size
        if settings.memory_check:
            check_memory(
                _load(network, batch_size, devices), memory_here(devices), ("eval_batch_size",),
                "embedding",
            )  # fmt: skip
        evaluator = Evaluator(forward, views, devices, batch_size, crops=settings.eval_crops)
        self._images = Imagewise(evaluator, views.channels, batch_size)

    def features(
        self, images: Manifest, *, skip_unreadable: bool = False
    ) -> tuple[np.ndarray, dict[int, str]]:
        """Features of images.

        Args:
            images: n of them.
            skip_unreadable: Leave out what cannot be decoded instead of raising.

        Returns:
            Features float32 or float16 [n, d], and what is wrong with images that cannot be
            decoded, by position; their rows are zeros.

        Raises:
            UserError: An image cannot be decoded, or features are not finite.
        """
        bad: dict[int, str] = {}
        try:
            rows = self._images.outputs(images).features
        except (tf.errors.OpError, UserError):
            bad = self._images.undecodable(images)
            if not bad:
                raise
            if not skip_unreadable:
                raise UserError(_unreadable(images, bad)) from None
            good = [row for row in range(len(images)) if row not in bad]
            rows = np.zeros((len(images), self._dim), np.float32)
            if good:
                readable = images.subset(images.records[row] for row in good)
                rows[good] = self._images.outputs(readable).features
        if not np.isfinite(rows).all():
            raise UserError("features are not finite: the encoder has diverged")
        if self._settings.normalize:
            rows = l2_normalize(rows)
        return self._kept(rows), bad

    def _kept(self, rows: np.ndarray) -> np.ndarray:
        if not self._settings.float16:
            return rows
        if np.abs(rows).max(initial=0) > np.finfo(np.float16).max:
            raise UserError("--float16: features are too large for it; add --normalize")
        return rows.astype(np.float16)


def _load(network: Network, batch_size: int, devices: distribution.Devices) -> Load:
    """What a pass of images through the network holds in memory; nothing is trained."""
    model, record = network.model, network.record
    size, channels = record["image_size"], record["channels"]
    activations = count_activations(lambda x: model(x, training=False), size, channels, ())
    return Load(
        activations, variable_bytes(model.variables), 0.0, size, channels, batch_size, views=1,
        shared=devices.kind == "CPU",
    )  # fmt: skip


def compute_floors(
    network: Network, settings: FeatureSettings, images: Manifest, seed: int
) -> FloorFeatures:
    """Computes the features of the floors.

    Args:
        network: The encoder, whose architecture counts.
        settings: How its images are passed through it.
        images: All that were embedded, in order; all can be read.
        seed: Of fresh weights and of the sample.
    """
    rows = np.arange(len(images))
    if len(rows) > _MOST_OF_FLOORS:
        drawn = np.random.default_rng(seed).choice(len(rows), _MOST_OF_FLOORS, replace=False)
        rows = np.sort(drawn)
    keras.utils.set_random_seed(seed)
    fresh = SimCLRModel.from_config({**network.model.get_config(), "dtype": "float32"})
    fresh.build((None, None, None, network.model.image_channels))
    widths: list[int] = []

    def both(batch: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        layer = tf.cast(fresh(batch, training=training)[settings.endpoint], tf.float32)
        if len(layer.shape) == 4:
            layer = tf.reduce_mean(layer, [1, 2])
        parts = [some_features(flat_pixels(batch), seed), some_features(layer, seed)]
        widths[:] = [int(parts[0].shape[1])]
        return {settings.endpoint: tf.concat(parts, axis=1)}

    plain = replace(settings, normalize=False, float16=False)
    stand_in: Any = both
    featuriser = Featuriser(replace(network, model=stand_in), plain)
    found, _ = featuriser.features(images.subset(images.records[row] for row in rows))
    return FloorFeatures(rows, found[:, : widths[0]], found[:, widths[0] :])


def _unreadable(images: Manifest, bad: dict[int, str]) -> str:
    row, why = next(iter(bad.items()))
    record = images.records[row]
    name = image_name(images.files()[row], record.reading, record.tile)
    more = f" (and {len(bad) - 1} more near it)" if len(bad) > 1 else ""
    return f"{name} cannot be read{more}: {why}; mend or remove it, or give --skip_unreadable"


def fill_shards(
    featuriser: Featuriser,
    images: Manifest,
    shards: Shards,
    worker: int,
    num_workers: int,
    *,
    skip_unreadable: bool,
    progress: Progress,
) -> None:
    """Computes the shards of a worker that are still missing.

    Args:
        featuriser: Makes the features.
        images: All of the plan.
        shards: Where they are kept.
        worker: Which of the workers this is.
        num_workers: How many share the shards.
        skip_unreadable: Leave out what cannot be decoded instead of raising.
        progress: Called with (images done, images of this worker in all), of those missing.
    """
    missing = shards.missing(worker, num_workers)
    total, done = sum(len(shards.plan.rows(shard)) for shard in missing), 0
    for shard in missing:
        rows = shards.plan.rows(shard)
        parts: list[np.ndarray] = []
        unreadable: dict[int, str] = {}
        for start in range(rows.start, rows.stop, _CHUNK):
            part = images.subset(images.records[start : min(start + _CHUNK, rows.stop)])
            features, bad = featuriser.features(part, skip_unreadable=skip_unreadable)
            parts.append(features)
            unreadable |= {start - rows.start + row: why for row, why in bad.items()}
            done += len(part)
            progress(done, total)
        shards.write(shard, np.concatenate(parts), unreadable)
