"""What the command line leaves open is taken from the checkpoint that a run starts from."""

import logging
from collections.abc import Collection, Mapping
from typing import Any

from data_prep.augment.views import SMALL_IMAGE
from data_prep.manifest.read_options import READING_FIELDS, carried, rule_completed
from simclr_tf.checkpoints.load import open_checkpoint
from simclr_tf.config.run_config import RunConfig
from simclr_tf.models.architectures import spelled
from simclr_tf.training.expected import network_facts, refuse_contradictions

log = logging.getLogger(__name__)

_BACKBONE = (
    "backbone",
    "resnet_depth",
    "width_multiplier",
    "sk_ratio",
    "se_ratio",
    "stem",
    "patch_size",
    "transformer_depth",
)
_PROJECTION = ("proj_head_mode", "proj_out_dim", "num_proj_layers")
_IMAGES = ("image_size", "central_crop", "whole_image")


def adopt_checkpoint(config: RunConfig, given: Collection[str]) -> RunConfig:
    """Completes the settings of a run that starts from a checkpoint, or learns from a teacher.

    Network, image size, central crop and the way files are read (tiles excepted) are those of
    `--checkpoint`; without one, of `--teacher`.

    Args:
        config: The settings, defaults where nothing was given.
        given: Names of the settings that were given.

    Returns:
        The completed settings.

    Raises:
        UserError: There is no such checkpoint, or what was given contradicts it.
    """
    path = config.start.checkpoint or config.distill.teacher
    if not path:
        return config
    checkpoint = open_checkpoint(path, ema=config.start.ema and bool(config.start.checkpoint))
    values = config.values()
    given = {name for name in given if name != "stem" or values["stem"] != "auto"}
    known: dict[str, Any] = network_facts(checkpoint.network)
    if config.start.checkpoint:
        refuse_contradictions(checkpoint, {n: values[n] for n in _BACKBONE if n in given})
    if "backbone" in given and spelled(values["backbone"]) != known.get("backbone"):
        # A student of another kind than its teacher.
        known = {name: value for name, value in known.items() if name not in _BACKBONE}
    known |= {n: checkpoint.preprocessing[n] for n in _IMAGES if n in checkpoint.preprocessing}
    known |= rule_completed(checkpoint.preprocessing.get("reading", {}))
    size = values["image_size"] if "image_size" in given else known.get("image_size", 0)
    if values["stem"] == "auto" and (size <= SMALL_IMAGE) == (known.get("stem") == "cifar"):
        known.pop("stem", None)  # as auto has it
    adopted = {
        name: known[name]
        for name in (*_BACKBONE, *_PROJECTION, *_IMAGES, *READING_FIELDS)
        if name in known and name not in given and known[name] != values[name]
    }
    if adopted:
        said = ", ".join(f"--{name}={value}" for name, value in adopted.items())
        log.info("from %s: %s", checkpoint.stored.path, said)
    _say_other_reading(values, known, given)
    say_exif(checkpoint.preprocessing, values["exif"])
    return RunConfig.from_values({**values, **adopted})


def say_exif(record: Mapping[str, Any], exif: str) -> None:
    """Says so if images are turned upright for a network that has seen them as stored.

    Args:
        record: Of the network to start from.
        exif: What the new run does.
    """
    if exif == "apply" and carried(record.get("reading", {}))["exif"] == "ignore":
        log.info(
            "the network to start from has seen photographs as stored; here they are turned"
            " upright (--exif=ignore leaves them as they are)"
        )


def _say_other_reading(
    values: dict[str, Any], known: dict[str, Any], given: Collection[str]
) -> None:
    for name in ("intensity", "nan"):
        if name in given and name in known and values[name] != known[name]:
            log.warning(
                "--%s=%s: the network has seen images read with %s",
                name,
                values[name],
                known[name],
            )
