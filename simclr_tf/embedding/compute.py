"""An embedding from images to a finished folder: compute, join the parts, look at the whole."""

import hashlib
import json
import logging
import zipfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np
import tensorflow as tf

from data_prep.errors import UserError, setting_renamed
from data_prep.manifest.digest import files_digest
from data_prep.manifest.identity import image_name
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.places import place_columns
from data_prep.phrases import counted
from data_prep.storage import check_new_folder, new_folder, read_object
from simclr_tf.checkpoints.load import convert, open_checkpoint
from simclr_tf.checkpoints.preprocessing import Preprocessing
from simclr_tf.embedding.analyze import ANALYZED, analyze_embedding
from simclr_tf.embedding.measures import FloorFeatures
from simclr_tf.embedding.settings import EmbedConfig, FeatureSettings, names_in
from simclr_tf.embedding.shards import (
    ShardPlan,
    Shards,
    open_shards,
    remove_shards,
    the_one_that_joins,
)
from simclr_tf.embedding.stored import (
    ARCHIVE,
    COMPUTED,
    FACTS,
    FEATURES,
    MANIFEST,
    UNREADABLE,
    FeatureFile,
    StoredEmbedding,
    is_stored,
    join_labels,
    known_columns,
    publish,
    write_rows,
)
from simclr_tf.evaluation.features import l2_normalize
from simclr_tf.evaluation.neighbors import Progress
from simclr_tf.explore.page import PAGE
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.models.weights import copy_in, variables_hash
from simclr_tf.training import distribution
from simclr_tf.training.data import read_manifest
from simclr_tf.training.evaluator import Featurizer
from simclr_tf.training.floors import PIXELS, flat_pixels, some_features
from simclr_tf.training.from_checkpoint import seen_by
from simclr_tf.training.memory import (
    Load,
    check_memory,
    count_activations,
    memory_here,
    variable_bytes,
)

log = logging.getLogger(__name__)


_MOST_OF_FLOORS = 4000  # images: more change little
_CHUNK = 512  # images between two lines of progress


@dataclass(frozen=True)
class OpenedEncoder:
    """An encoder that was opened.

    Attributes:
        path: The file or prefix of its weights.
        model: With its weights.
        record: How its images were prepared.
        sha256: Hash of its weights.
        feature_dim: Length of the features of the layer that is taken.
    """

    path: str
    model: SimCLRModel
    record: dict[str, Any]
    sha256: str
    feature_dim: int

    @property
    def preprocessing(self) -> Preprocessing:
        """What the record says."""
        return Preprocessing.from_record(self.record)


def open_network(settings: FeatureSettings) -> OpenedEncoder:
    """Opens the encoder that the settings name.

    Raises:
        UserError: There is none, or it has no such layer.
    """
    with setting_renamed(checkpoint="encoder"):
        checkpoint = open_checkpoint(settings.encoder, ema=settings.ema)
    model, _ = convert(checkpoint)
    record = model.encoder.preprocessing
    preprocessing = Preprocessing.from_record(record)
    digest = variables_hash(model.variables)
    if settings.precision == "bfloat16":
        model = copy_in(model, "mixed_bfloat16")
    size, channels = preprocessing.image_size, preprocessing.channels
    layers = model(tf.zeros([1, size, size, channels]), training=False)
    if settings.endpoint not in layers:
        raise UserError(
            f"the network has {', '.join(layers)}", setting="endpoint", value=settings.endpoint
        )
    dim = layers[settings.endpoint].shape[-1]
    return OpenedEncoder(checkpoint.stored.path, model, record, digest, dim)


class FeatureMaker:
    """Makes the features of an embedding; its graph is traced once.

    Args:
        network: The encoder.
        settings: Layer and form of the features.
    """

    def __init__(self, network: OpenedEncoder, settings: FeatureSettings) -> None:
        self._settings, self._dim = settings, network.feature_dim
        model, endpoint = network.model, settings.endpoint

        def forward(images: tf.Tensor) -> dict[str, tf.Tensor]:
            layer = tf.cast(model(images, training=False)[endpoint], tf.float32)
            return {"features": tf.reduce_mean(layer, [1, 2]) if len(layer.shape) == 4 else layer}

        batch_size = settings.eval_batch_size
        self._images = Featurizer(forward, network.preprocessing, batch_size, settings.eval_crops)
        if settings.memory_check:
            devices = self._images.devices
            check_memory(
                _load(network, batch_size, devices), memory_here(devices), ("eval_batch_size",),
                "embedding",
            )  # fmt: skip

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
            raise UserError("features are too large for it; add --normalize", setting="float16")
        return rows.astype(np.float16)


def _load(network: OpenedEncoder, batch_size: int, devices: distribution.Devices) -> Load:
    """Memory load of a pass of images through the network, without training."""
    model, preprocessing = network.model, network.preprocessing
    size, channels = preprocessing.image_size, preprocessing.channels
    activations = count_activations(lambda x: model(x, training=False), size, channels, ())
    return Load(
        activations, variable_bytes(model.variables), 0.0, size, channels, batch_size, views=1,
        shared=devices.kind == "CPU",
    )  # fmt: skip


def compute_floors(
    network: OpenedEncoder, settings: FeatureSettings, images: Manifest, seed: int
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
    one = tf.zeros([1, PIXELS, PIXELS, network.model.image_channels])
    width = int(some_features(flat_pixels(one), seed).shape[1])

    def both(batch: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        layer = tf.cast(fresh(batch, training=training)[settings.endpoint], tf.float32)
        if len(layer.shape) == 4:
            layer = tf.reduce_mean(layer, [1, 2])
        parts = [some_features(flat_pixels(batch), seed), some_features(layer, seed)]
        return {settings.endpoint: tf.concat(parts, axis=1)}

    # The memory has been checked: the encoder passed before is as large.
    plain = replace(settings, normalize=False, float16=False, memory_check=False)
    stand_in: Any = both
    maker = FeatureMaker(replace(network, model=stand_in), plain)
    found, _ = maker.features(images.subset(images.records[row] for row in rows))
    return FloorFeatures(rows, found[:, :width], found[:, width:])


def _unreadable(images: Manifest, bad: dict[int, str]) -> str:
    row, why = next(iter(bad.items()))
    record = images.records[row]
    name = image_name(images.files()[row], record.reading, record.tile)
    more = f" (and {len(bad) - 1} more near it)" if len(bad) > 1 else ""
    return f"{name} cannot be read{more}: {why}; mend or remove it, or give --skip_unreadable"


def fill_shards(
    maker: FeatureMaker,
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
        maker: Makes the features.
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
            features, bad = maker.features(part, skip_unreadable=skip_unreadable)
            parts.append(features)
            unreadable |= {start - rows.start + row: why for row, why in bad.items()}
            done += len(part)
            progress(done, total)
        shards.write(shard, np.concatenate(parts), unreadable)


_ROWS = 8192


def join_shards(
    shards: Shards, images: Manifest, folder: Path, target: Path | None = None
) -> Manifest:
    """Writes `features.npy` and `manifest.csv` from complete shards, a shard at a time.

    Args:
        shards: All of them there.
        images: Of the plan; those that could not be read are left out and listed in
            `unreadable.csv`.
        folder: The folder to write to.
        target: Where the files will lie in the end; None = in `folder`.

    Returns:
        The images that have features.

    Raises:
        UserError: No image could be read.
    """
    bad = shards.unreadable()
    if len(bad) == len(images):
        first = next(iter(bad))
        raise UserError(
            f"none of the images can be read; {images.records[first].name}: {bad[first]}"
        )
    kept = images.subset(r for row, r in enumerate(images.records) if row not in bad)
    first_rows, _ = shards.read(0)
    with (folder / FEATURES).open("wb") as file:
        _write_header(file, (len(kept), first_rows.shape[1]), first_rows.dtype)
        for shard in range(shards.plan.shards):
            rows, unreadable = shards.read(shard)
            good = np.setdiff1d(np.arange(len(rows)), list(unreadable)).astype(np.int64)
            np.ascontiguousarray(rows[good]).tofile(file)
    kept.save(folder / MANIFEST, place=target or folder)
    if bad:
        places = place_columns(images.subset(images.records[row] for row in bad))
        write_rows(folder / UNREADABLE, {**places, "problem": list(bad.values())})
    return kept


def write_archive(path: Path, stored: StoredEmbedding) -> None:
    """Writes an NPZ, a block at a time, that `evaluation.features.Embeddings.load` reads.

    It holds `features` [n, d], `labels` int64 [n] (positions among `class_names`, -1 = none),
    `indices` int64 [n], `class_names`, and `paths`, `splits` as texts [n].
    """
    names = stored.images.class_names
    arrays = {
        "labels": stored.images.label_indices(names),
        "indices": np.arange(len(stored)),
        "class_names": np.array(names, np.str_),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:

        def member(name: str, shape: tuple[int, ...], dtype: np.dtype,
                   blocks: Iterator[np.ndarray]) -> None:  # fmt: skip
            # A date that is always the same, as in NumPy.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                _write_header(file, shape, dtype)
                for block in blocks:
                    file.write(np.ascontiguousarray(block, dtype).tobytes())

        file = stored.features
        blocks = (file[slice(start, start + _ROWS)] for start in range(0, len(file), _ROWS))
        member("features", file.shape, file.dtype, blocks)
        for name, array in arrays.items():
            member(name, array.shape, array.dtype, iter((array,)))
        for name, column in (("paths", "path"), ("splits", "split")):
            texts = stored.columns[column]
            kind = np.dtype(f"<U{max(1, *map(len, texts))}")
            member(name, (len(texts),), kind, _text_blocks(texts, kind))


def _text_blocks(texts: Sequence[str], kind: np.dtype) -> Iterator[np.ndarray]:
    for start in range(0, len(texts), _ROWS):
        yield np.array(texts[start : start + _ROWS], kind)


def _write_header(file: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """The head of a `.npy` file, after which the numbers follow in order."""
    stream: BinaryIO = file
    facts = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(stream, facts)


def _silent(done: int, total: int) -> None:
    """Reports no progress."""


def embed(
    config: EmbedConfig, given: Collection[str] = frozenset(), progress: Progress = _silent
) -> str:
    """Computes this process's part of an embedding, and joins it if nothing is missing then.

    Args:
        config: Encoder, images, output.
        given: Names of settings that were stated: how files are read comes from the encoder's
            record but for these.
        progress: Called with (images done, images in all).

    Returns:
        A table of the measures; or what other processes have still to do.

    Raises:
        UserError: The output is there, encoder or images cannot be used.
    """
    target = Path(config.storage.output).expanduser().absolute()
    network = open_network(config.features)
    images = _images(config, given, network)
    plan = _plan(config, network, images)
    if _finished(target, plan, config, images):
        return f"{target} is complete"
    with open_shards(target, plan, config.storage.worker) as shards:
        settings = config.storage
        missing = shards.missing(settings.worker, settings.num_workers)
        if missing:
            if plan.shards > 1:
                log.info("%d of %d shards to compute", len(missing), plan.shards)
            else:
                log.info("features of %s to compute", counted(plan.images, "image"))
            fill_shards(
                FeatureMaker(network, config.features),
                images,
                shards,
                settings.worker,
                settings.num_workers,
                skip_unreadable=config.images.skip_unreadable,
                progress=progress,
            )
        left = len(shards.missing())
        if left:
            verb = "is" if left == 1 else "are"
            return f"{left} of {plan.shards} shards {verb} still to come from other workers"
        with the_one_that_joins(target) as place:
            if place is None or not shards.folder.is_dir():
                return "another worker joins the shards"
            table = _join(config, network, images, shards, place, target, progress)
            publish(place, target, (*COMPUTED, *ANALYZED))
            remove_shards(target)
            if (target / PAGE).exists():
                log.info("the page: %s", target / PAGE)
    return table


def _images(config: EmbedConfig, given: Collection[str], network: OpenedEncoder) -> Manifest:
    """The images, read as the encoder's record says unless a flag says otherwise."""
    data = config.images.data_settings()
    return network.preprocessing.reading.open(
        config.reading.among(given),
        find=lambda declared: read_manifest(data, declared),
        sample=lambda images: images,
    )


def _plan(config: EmbedConfig, network: OpenedEncoder, images: Manifest) -> ShardPlan:
    f = config.features
    key = {
        "images": images.sha256(),
        "encoder": network.sha256,
        "record": network.record,
        "features": [f.endpoint, f.normalize, f.float16, f.eval_crops, f.precision],
        "passes": [f.eval_batch_size, config.storage.shard_images],
        "skip": config.images.skip_unreadable,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return ShardPlan(len(images), config.storage.shard_images, digest)


def _finished(target: Path, plan: ShardPlan, config: EmbedConfig, images: Manifest) -> bool:
    """True if the same command has finished; refuses an output that is of something else."""
    if not target.exists() or not any(target.iterdir()):
        return False
    if not is_stored(target):
        check_new_folder(target)
    facts = read_object(target / FACTS)
    same = facts.get("plan") == plan.key
    again = facts.get("asked") == _asked(config) and not config.storage.overwrite
    if same and not config.storage.overwrite and facts.get("content"):
        same = facts["content"] == files_digest(images.files())
    if same and again:
        remove_shards(target)
        return True
    if not config.storage.overwrite:
        raise UserError(
            f"--output={target}: holds "
            + (
                f"these features already; --embedding={target} looks at them in another way"
                if same
                else "another embedding; give another folder, or --overwrite"
            )
        )
    return False


def _asked(config: EmbedConfig) -> str:
    """Hash of the settings that decide the content of the folder; paths are not among them."""
    places = {"output", "overwrite", "worker", "num_workers", "image_dir", "manifest", "encoder"}
    how = {*places, "memory_check"}
    values = {name: value for name, value in config.values().items() if name not in how}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _join(
    config: EmbedConfig,
    network: OpenedEncoder,
    images: Manifest,
    shards: Shards,
    place: Path,
    target: Path,
    progress: Progress,
) -> str:
    with new_folder(place) as folder:
        kept = join_shards(shards, images, folder, target)
        features = FeatureFile(folder / FEATURES)
        facts = _facts(config, network, kept, features, shards.plan, images)
        stored = StoredEmbedding(folder, features, kept, known_columns(kept), facts)
        if "npz" in names_in(config.storage.formats):
            write_archive(folder / ARCHIVE, stored)
        if config.measures.floors and (stored.label_columns or config.labelling.join):
            compute_floors(network, config.features, kept, config.measures.seed).save(folder)
        joined = None
        if config.labelling.join:
            joined = join_labels(stored, Path(config.labelling.join))
        return analyze_embedding(stored, config, folder, joined, progress)


def _facts(
    config: EmbedConfig,
    network: OpenedEncoder,
    images: Manifest,
    features: FeatureFile,
    plan: ShardPlan,
    wanted: Manifest,
) -> dict[str, Any]:
    return {
        "encoder": {"source": config.features.encoder, "sha256": network.sha256},
        "endpoint": config.features.endpoint,
        "dimensions": features.shape[1],
        "dtype": features.dtype.name,
        "normalized": config.features.normalize,
        "eval_crops": config.features.eval_crops,
        "precision": config.features.precision,
        "preprocessing": network.record,
        "images": len(images),
        "unreadable": plan.images - len(images),
        "splits": {name: len(images.split(name)) for name in images.splits},
        "data_sha256": images.sha256(),
        "content": files_digest(wanted.files()),
        "plan": plan.key,
        "asked": _asked(config),
        "expert_columns": [],
        "alarms": list(seen_by(network.path, images)),
    }
