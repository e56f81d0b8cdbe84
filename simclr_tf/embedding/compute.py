"""An embedding from images to a finished folder: compute, join the parts, look at the whole."""

import hashlib
import json
import logging
from collections.abc import Set
from pathlib import Path
from typing import Any

from data_prep.checksums import read_object
from data_prep.errors import UserError
from data_prep.manifest.digest import files_digest
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.read_options import Declaration, carried
from data_prep.new_folder import new_folder
from data_prep.phrases import counted
from data_prep.reading.training_files import TrainingFiles, say_differences
from data_prep.storage import check_new_folder
from simclr_tf.checkpoints.find import locate
from simclr_tf.embedding.analyze import ANALYSED, analyse
from simclr_tf.embedding.expert import join_labels
from simclr_tf.embedding.joining import join_shards, write_archive
from simclr_tf.embedding.network import (
    Featuriser,
    Network,
    compute_floors,
    fill_shards,
    open_network,
)
from simclr_tf.embedding.settings import EmbedConfig, names_in
from simclr_tf.embedding.shards import (
    Plan,
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
    FeatureFile,
    Stored,
    is_stored,
    publish,
)
from simclr_tf.embedding.table import known_columns
from simclr_tf.evaluation.blockwise import Progress
from simclr_tf.explore.page import PAGE
from simclr_tf.training.data import read_manifest
from simclr_tf.training.lineage import seen_by

log = logging.getLogger(__name__)


def _silent(done: int, total: int) -> None:
    """No progress."""


def embed(config: EmbedConfig, given: Set[str] = frozenset(), progress: Progress = _silent) -> str:
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
                Featuriser(network, config.features),
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
            publish(place, target, (*COMPUTED, *ANALYSED))
            remove_shards(target)
            if (target / PAGE).exists():
                log.info("the page: %s", target / PAGE)
    return table


def _images(config: EmbedConfig, given: Set[str], network: Network) -> Manifest:
    """The images, read as the encoder's record says but for what was stated."""
    own = {name: getattr(config.reading, name) for name in vars(config.reading) if name in given}
    declaration = Declaration(**{**carried(network.record.get("reading", {})), **own})
    if declaration.changes():
        said = ", ".join(f"--{name}={value}" for name, value in declaration.changes().items())
        log.info("images are read with %s", said)
    images = read_manifest(config.images.data_settings(), declaration)
    files = TrainingFiles.from_record(network.record)
    say_differences(files, images, declaration, forced="intensity" in own)
    return images


def _plan(config: EmbedConfig, network: Network, images: Manifest) -> Plan:
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
    return Plan(len(images), config.storage.shard_images, digest)


def _finished(target: Path, plan: Plan, config: EmbedConfig, images: Manifest) -> bool:
    """Whether the same command has finished; refuses an output that is of something else."""
    if not target.exists() or not any(target.iterdir()):
        return False
    if not is_stored(target):
        check_new_folder(target)
    facts = read_object(target / FACTS)
    same = facts.get("plan") == plan.key
    again = facts.get("asked") == _asked(config) and not config.storage.overwrite
    if same and not config.storage.overwrite and facts.get("content"):
        same = facts["content"] == files_digest(images.files())
    if same and (config.storage.num_workers > 1 or again):
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
    """Hash of all settings that decide what is in the folder, but for where things lie."""
    places = {"output", "overwrite", "worker", "num_workers", "image_dir", "manifest", "encoder"}
    how = {*places, "memory_check"}
    values = {name: value for name, value in config.values().items() if name not in how}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _join(
    config: EmbedConfig,
    network: Network,
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
        stored = Stored(folder, features, kept, known_columns(kept), facts)
        if "npz" in names_in(config.storage.formats):
            write_archive(folder / ARCHIVE, stored)
        if config.measures.floors and (stored.label_columns or config.labelling.join):
            compute_floors(network, config.features, kept, config.measures.seed).save(folder)
        joined = None
        if config.labelling.join:
            joined = join_labels(stored, Path(config.labelling.join))
        return analyse(stored, config, folder, joined, progress)


def _facts(
    config: EmbedConfig,
    network: Network,
    images: Manifest,
    features: FeatureFile,
    plan: Plan,
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
        "alarms": list(seen_by(locate(config.features.encoder).path, images)),
    }
